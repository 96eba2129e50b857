"""CloudEvents in front of a model server that does not know them: an event's data is a request of another codec's
protocol. Merges and splits nothing itself. Makes no reply events: they need a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from knative_sponge.codec.base import Answer, Call, Codec, Part, RequestHead
from knative_sponge.codec.cloudevents.event import Mode, mode_of, plain_head, read_event
from knative_sponge.errors import BadRequest


class UnwrapCodec:
    """Codec whose requests may come as events: they are merged with each other and with plain requests.

    The model server never sees that a request was an event, not even when it goes alone. So its answers, and the reply
    events made of them, do not depend on the batch.
    """

    def __init__(self, inner: Codec) -> None:
        self._inner = inner
        self.name: str = inner.name

    def wants(self, head: RequestHead) -> bool:
        """As the inner codec does: events elsewhere pass through unread."""
        return self._inner.wants(head)

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """As the inner codec does, of an event's data. Raises BadRequest for an invalid event too."""
        event = read_event(head, body)
        if event is None:
            return self._inner.parse(head, body)
        part = self._inner.parse(plain_head(head, event), event.data)
        return replace(part, event=event, unwrapped=True)

    def merge(self, parts: Sequence[Part]) -> Call:
        """As the inner codec does."""
        return self._inner.merge(parts)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """As the inner codec does; the shares of events are no events yet, whatever the whole answer calls itself."""
        if len(parts) > 1 and mode_of(answer.headers) is Mode.BINARY:
            answer = replace(answer, headers=[pair for pair in answer.headers if not pair[0].startswith(b"ce-")])
        return self._inner.split(parts, answer)


class EventAwareCodec(UnwrapCodec):
    """Codec for servers of any protocol: events are read for their deadline and their failures, and sent as they came.

    A request that is no valid event is a request like any other: the server judges it.
    """

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """As the inner codec does, of the whole request."""
        part = self._inner.parse(head, body)
        try:
            return replace(part, event=read_event(head, body))
        except BadRequest:
            return part
