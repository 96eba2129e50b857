"""What the proxy's operator reads when calls of the model server fail: a line a kind, now and then, whatever their number."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from knative_sponge.errors import Reason

PERIOD_S: Final = 10.0
_UPSTREAM: Final = frozenset({Reason.UPSTREAM_REFUSED, Reason.UPSTREAM_ERROR, Reason.UPSTREAM_MISMATCH, Reason.TIMEOUT})
_MOST_SHOWN: Final = 200

failures = logging.getLogger("knative_sponge.proxy.failures")


def note_failure(reason: Reason, message: str | None) -> None:
    """Log that the model server's side failed; for any other reason do nothing."""
    if reason in _UPSTREAM:
        failures.warning("%s: %s", reason, (message or "no answer of the model server")[:_MOST_SHOWN])


class OncePerPeriod(logging.Filter):
    """Lets one record of a kind through in `period_s`, with the number of those before it that it kept back.

    The kind is the first argument of a record; kinds are few. clock: monotonic seconds.
    """

    def __init__(self, period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._period_s = period_s
        self._clock = clock
        self._kinds: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        kind = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
        now = self._clock()
        last_s, kept_back = self._kinds.get(kind, (-math.inf, 0))
        if now - last_s < self._period_s:
            self._kinds[kind] = last_s, kept_back + 1
            return False
        self._kinds[kind] = now, 0
        if kept_back:
            record.msg = f"{record.msg} (and {kept_back} more in the {now - last_s:.0f} s before)"
        return True
