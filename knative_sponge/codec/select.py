"""Which codec belongs to which protocol setting, and the codec that decides by request path. No body is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from knative_sponge.codec.alone import AloneCodec
from knative_sponge.codec.apart import ApartCodec
from knative_sponge.codec.base import Answer, Call, Codec, Part, RequestHead
from knative_sponge.codec.cloudevents.batched import CloudEventsCodec
from knative_sponge.codec.cloudevents.unwrap import EventAwareCodec, UnwrapCodec
from knative_sponge.codec.json_array import JsonArrayCodec
from knative_sponge.codec.v1 import V1Codec
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.errors import SettingError


class AutoCodec:
    """V2 or V1 by the path of each request (docs/design.md §3.1, protocol `auto`).

    It wants no other requests. It never merges bare arrays: no path says that a server takes rows.
    """

    name: str = "auto"

    def __init__(self) -> None:
        self._codecs: tuple[Codec, ...] = (V2Codec(), V1Codec())
        self._alone = AloneCodec()

    def wants(self, head: RequestHead) -> bool:
        """Whether the request is an inference call of V2 or V1."""
        for codec in self._codecs:  # noqa: SIM110 (asked for every request: a generator costs more than the question)
            if codec.wants(head):
                return True
        return False

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """As the codec of the path does; a request that no codec wants goes alone."""
        return self._codec(head).parse(head, body)

    def merge(self, parts: Sequence[Part]) -> Call:
        """As the codec of the path does."""
        return self._codec(parts[0].head).merge(parts)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """As the codec of the path does."""
        return self._codec(parts[0].head).split(parts, answer)

    def _codec(self, head: RequestHead) -> Codec:
        return next((codec for codec in self._codecs if codec.wants(head)), self._alone)


_CODECS: Mapping[str, Callable[[], Codec]] = MappingProxyType(
    {
        AutoCodec.name: lambda: UnwrapCodec(AutoCodec()),
        V2Codec.name: lambda: UnwrapCodec(V2Codec()),
        V1Codec.name: lambda: UnwrapCodec(V1Codec()),
        CloudEventsCodec.name: CloudEventsCodec,
        JsonArrayCodec.name: lambda: UnwrapCodec(JsonArrayCodec()),
        AloneCodec.name: lambda: EventAwareCodec(AloneCodec()),
    }
)


def codec_for(protocol: str, keep_apart: Sequence[str] = ()) -> Codec:
    """The codec of a protocol, by its name in the settings. Raises SettingError for a protocol that has none.

    keep_apart: see `codec.apart.ApartCodec`.
    """
    if protocol not in _CODECS:
        raise SettingError("protocol", str(protocol), "one of " + ", ".join(_CODECS))
    codec = _CODECS[protocol]()
    return ApartCodec(codec, keep_apart) if keep_apart else codec
