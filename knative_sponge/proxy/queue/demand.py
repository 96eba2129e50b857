"""Publishes what the pod needs: evaluates the core's estimate on time and on change, and feeds every subscriber."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from knative_sponge.core.demand.estimator import Demand, DemandEstimator
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.wire.demand import DemandLine, encode_demand

_PERIOD_S = 0.1
"""An estimate at least so often (docs/design.md §4.7: every 100 ms)."""
_BEAT_S = 1.0
"""A message at least so often, changed or not."""
_SPACING_S = 0.01
"""Arrivals in quick succession share an estimate: one takes about a millisecond."""
_MOST_SHARE = 10.0
"""An estimate is followed by at least so many times its own duration without one, however long the queue."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodActivity:
    """What the estimator does not see and a demand line tells beside the estimate.

    coming: a size that was patched and is not confirmed. idle_s: see `Occupancy.idle_s`; None where nobody counts.
    met, missed: see `Metrics`; since the start.
    """

    coming: float | None
    idle_s: float | None
    met: int
    missed: int


class DemandFeed:
    """The latest demand, and who listens. `poke` when the queue changed; estimates are made soon after, never inside it.

    activity: asked for each line.
    """

    def __init__(self, estimator: DemandEstimator, activity: Callable[[], PodActivity]) -> None:
        self._estimator = estimator
        self._activity = activity
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._last_s = 0.0
        self._quiet_s = _SPACING_S
        self._seq = 0
        self._sent_s = 0.0
        self._changed = asyncio.Event()
        self.wanted = estimator.rules.min_cores
        self.line = b""

    def start(self) -> None:
        """Begin estimating. Needs a running loop."""
        self._estimate()

    def close(self) -> None:
        """Stop estimating; streams end."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self.line = b""
        self._announce()

    def poke(self) -> None:
        """Something changed: estimate within a few milliseconds."""
        due_s = self._last_s + self._quiet_s
        if self._timer is not None and due_s < self._due_s:
            self._arm(due_s)

    async def lines(self) -> AsyncIterator[bytes]:
        """JSON lines for one subscriber: the latest at once, then each new one; a slow reader skips to the latest."""
        while line := self.line:
            yield line
            while self.line is line:
                await self._changed.wait()

    def _arm(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        delay_s = max(due_s - time.monotonic(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._estimate)

    def _estimate(self) -> None:
        now = time.monotonic()
        try:
            want = self._estimator.want(now)
            if want != self.wanted or not self.line or now - self._sent_s >= _BEAT_S:
                self._publish(self._estimator.demand(now), now)
        except Exception:
            # The last demand stands: subscribers keep it, and the next estimate may succeed.
            logger.exception("the demand could not be estimated")
        done_s = time.monotonic()
        self._quiet_s = max(_SPACING_S, _MOST_SHARE * (done_s - now))
        self._last_s = done_s
        self._arm(done_s + max(_PERIOD_S, self._quiet_s))

    def _publish(self, demand: Demand, now: float) -> None:
        self._seq += 1
        self._sent_s = now
        self.wanted = demand.want
        self.line = encode_demand(_line(self._seq, demand, self._activity()))
        self._announce()

    def _announce(self) -> None:
        """Wake every subscriber that waits for the next line."""
        self._changed.set()
        self._changed = asyncio.Event()


def _line(seq: int, demand: Demand, activity: PodActivity) -> DemandLine:
    return DemandLine(
        seq=seq,
        cores=demand.cores,
        coming=activity.coming,
        want=demand.want,
        rate=round(demand.rate, 3),
        rows=round(demand.rows, 3),
        slack=_rounded(demand.slack_s),
        queued=demand.queued,
        running=demand.running,
        idle_s=_rounded(activity.idle_s),
        met=activity.met,
        missed=activity.missed,
        max_batch=demand.max_batch,
        params=_four(demand.params),
        cost=_four(demand.cost),
        samples=demand.samples,
        curve=demand.curve,
    )


def _four(params: LatencyParams) -> tuple[float, float, float, float]:
    gamma, delta, epsilon, eta = (
        float(f"{each:.6g}") for each in (params.gamma, params.delta, params.epsilon, params.eta)
    )
    return gamma, delta, epsilon, eta


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
