"""The answer to `GET /sponge/v1/demand`: bytes in, the newest demand out. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Final

from knative_sponge.errors import WireError
from knative_sponge.wire.demand import DemandLine, decode_demand
from knative_sponge.wire.http import AnswerReader

_LONGEST_LINE: Final = 64 * 1024


class DemandReader:
    """One stream. Of several lines that come at once only the last is decoded: it replaces the others."""

    __slots__ = ("_answer", "_rest")

    def __init__(self) -> None:
        self._answer = AnswerReader(200)
        self._rest = b""
        """A line that has only begun."""

    @property
    def ended(self) -> bool:
        """Has the proxy said its last line?"""
        return self._answer.ended

    def feed(self, data: bytes) -> DemandLine | None:
        """The newest demand in what came next; None when no line was completed. Raises WireError."""
        body = self._rest + self._answer.feed(data)
        whole, newline, self._rest = body.rpartition(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise WireError("a demand without end")
        whole = whole.rstrip()
        return decode_demand(whole[whole.rfind(b"\n") + 1 :]) if newline and whole else None

    def finish(self) -> None:
        """The connection was closed. Raises WireError where the proxy had not said that it ends."""
        self._answer.finish()
