"""What eventing is told of a request that was a CloudEvent: a reply event, or a failure it acts rightly on.

Sends nothing and decides nothing about the queue. Rules: docs/knative-contract.md §7, CloudEvents 1.0.2 HTTP binding.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from knative_sponge.codec.base import Answer, CloudEvent, Part
from knative_sponge.codec.cloudevents.event import mode_of
from knative_sponge.errors import BadRequest, Reason
from knative_sponge.proxy.queue.answers import EXPLANATIONS, failure

_SUFFIX: Final = ".reply"
_TAKEN_OVER: Final = ("subject", "correlationid", "expirytime", "partitionkey")
"""Attributes of the request that hold for its reply: what it is about, the flow and order it is part of, and until when
anyone cares, so that a chain of services works against one deadline."""
_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_MOST_TAKEN_OVER: Final = 2**16
"""Characters of the request's attributes in a reply's head. Clients refuse longer heads and would send the event again."""
_RETRY_AFTER_S: Final = 1
"""The shortest time that the header can say."""


def source_of(namespace: str, configuration: str) -> str:
    """What the reply events of a configuration's revisions name as their `source`."""
    return f"/apis/serving.knative.dev/v1/namespaces/{namespace}/configurations/{configuration}"


def check_reply_possible(part: Part, source: str) -> None:
    """Raises BadRequest for an event that no reply can be made to.

    Such an event is a reply that `source` itself made: a Trigger that sends replies back would loop for ever. Or its
    attributes are too long for the reply's head.
    """
    event = part.event
    if event is None or not part.unwrapped:
        return
    if event.source == source:
        raise BadRequest("source: the event is a reply of this very service; let the Trigger filter by type")
    taken_over = (event.id, event.type, *(event.attributes.get(name, "") for name in _TAKEN_OVER))
    if sum(map(len, taken_over)) > _MOST_TAKEN_OVER:
        raise BadRequest(f"the attributes that a reply repeats have more than {_MOST_TAKEN_OVER} characters")


def refusal(
    event: CloudEvent | None, reason: Reason, left_s: float, message: str | None = None, status: int | None = None
) -> Answer:
    """The answer to a request that failed `left_s` seconds before its deadline.

    event: None for a plain request. message, status: None takes the reason's own. The status of an event's answer makes
    eventing send the event again exactly when that can still help.
    """
    if message is None:
        message = EXPLANATIONS[reason]
    if event is None:
        return failure(reason, message, status=status)
    answer = failure(reason, message, status=reason.event_status(left_s, status))
    if answer.status == 503 and left_s > _RETRY_AFTER_S:
        return Answer(503, [*answer.headers, (b"retry-after", b"%d" % _RETRY_AFTER_S)], answer.body)
    return answer


def reply(part: Part, answer: Answer, source: str, wall_now_s: float) -> Answer:
    """The answer to an unwrapped event as an event in binary mode. Empty answers, failures and events stay as they are.

    The reply's id depends only on the event and the path, so a receiver can tell what eventing delivers twice. Its type
    never equals the request's.
    """
    event = part.event
    if event is None or not part.unwrapped or not 200 <= answer.status < 300 or not answer.body:
        return answer
    if mode_of(answer.headers) is not None:
        return answer
    attributes = {
        "specversion": "1.0",
        "id": _id(source, event, part.head.target),
        "source": source,
        "type": event.type + _SUFFIX,
        "time": datetime.fromtimestamp(wall_now_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "causationid": event.id,
    }
    attributes |= {name: event.attributes[name] for name in _TAKEN_OVER if name in event.attributes}
    headers = [pair for pair in answer.headers if not pair[0].startswith(b"ce-")]
    headers += [(f"ce-{name}".encode(), quote(value, safe=_SAFE).encode()) for name, value in attributes.items()]
    return Answer(answer.status, headers, answer.body)


def _id(source: str, event: CloudEvent, target: bytes) -> str:
    """Unique within `source`: an event may go to several paths of one service."""
    named = hashlib.blake2b(digest_size=16)
    for piece in (source, event.source, event.id):
        encoded = piece.encode()
        named.update(b"%d:%b" % (len(encoded), encoded))
    named.update(target)
    return named.hexdigest()
