"""One managed pod as the divider knows it: its resizer and what its proxy said. Decides no size, and does no I/O."""

from __future__ import annotations

from knative_sponge.controller.sizing.claim_holds import Hold
from knative_sponge.controller.sizing.claims import PodDemand
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.allocation.lookback import Lookback
from knative_sponge.wire.demand import DemandLine


class PodState:
    """From the pod's first sight until it is gone. The divider changes it; others read `resizer`, `demand` and `silent_s`.

    rules: how long wants and sizes are remembered. since_s: when the pod was seen first. now: monotonic seconds that never go
    back.
    """

    __slots__ = ("_admitted", "_demand", "_held", "_hold_s", "_hold_seen_s", "_lookback", "_resizer", "_since_s")

    def __init__(self, resizer: PodResizer, rules: GrowthRules, since_s: float) -> None:
        self._resizer = resizer
        pod = resizer.pod
        self._held = pod.size if pod.in_force is None else min(pod.size, pod.in_force)
        """Cores that the pod held when it was seen first."""
        self._admitted = pod.admitted
        self._since_s = since_s
        self._demand: PodDemand | None = None
        self._lookback = Lookback(rules)
        self._hold_s = rules.hold_s
        self._hold_seen_s: float | None = None
        """Begin of the hold that `new_hold` has answered for."""

    @property
    def resizer(self) -> PodResizer:
        """It carries out the pod's target."""
        return self._resizer

    @property
    def admitted(self) -> float:
        """Cores with which the pod was admitted, as far as it held them when it was seen first.

        What proves them may be a copy (`control_token`). What the pod holds is known from the scheduler and the kubelet, who
        let nobody have what others have. So a pod that a new leader finds smaller has a smaller claim.
        """
        # The key of the proof may be read later than the pod.
        return min(self._held, max(self._admitted, self._resizer.pod.admitted))

    @property
    def demand(self) -> PodDemand | None:
        """None before the first line of the pod's proxy."""
        return self._demand

    def silent_s(self, now: float) -> float:
        """Seconds since the last line; before the first line, since the pod was seen first."""
        return now - (self._since_s if self._demand is None else self._demand.at_s)

    def hear(self, line: DemandLine, now: float) -> bool:
        """Take a line. Returns whether the pod's node has to be divided: the want is another, or the pod was silent before."""
        known = self._demand
        peak = self._lookback.add(now, line.want, line.rate, self._resizer.machine.accepted)
        changed = known is None or line.want != known.line.want or peak != known.peak
        self._demand = PodDemand(line, peak, now, now if known is None or changed else known.since_s)
        return changed or known is None or known.stale(now)

    def cores(self, hold: Hold, now: float) -> float | None:
        """Cores to claim; None where the pod keeps its size, since nothing is known of its wants or they are stale."""
        demand = self._present(now)
        if demand is None or demand.stale(now):
            return None
        if hold == "nothing":
            return demand.line.want
        return max(demand.peak, self._resizer.machine.asked) if hold == "size" else demand.peak

    def hold_ends_in(self, now: float) -> float:
        """Seconds for which the pod still holds its size; 0 or less once it does so no longer."""
        return self._resizer.sized_s + self._hold_s - now

    def new_hold(self) -> bool:
        """Was the pod given another size since this was asked last?"""
        sized_s, before = self._resizer.sized_s, self._hold_seen_s
        self._hold_seen_s = sized_s
        return sized_s != before

    def _present(self, now: float) -> PodDemand | None:
        """The demand, once wants that are older than the look back count no longer."""
        demand = self._demand
        if demand is None:
            return None
        line = demand.line
        peak = self._lookback.add(now, line.want, line.rate, self._resizer.machine.accepted)
        if peak != demand.peak:
            demand = self._demand = PodDemand(line, peak, demand.at_s, now)
        return demand
