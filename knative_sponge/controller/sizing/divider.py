"""The fast loop: divides each node's cores among its managed pods and gives every pod its target (design §4, Divide).

A node is divided anew when something about it changed (and soon after a proxy wants another size), a short one twice a second.
While cores suffice, sizes are kept for a while (`core/allocation/growth.py`). The proxies never wait for any of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from knative_sponge.controller.cluster.capacity import ClusterCapacity, managed
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.kube.informer import Changed
from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.proxies.demand_streams import Address, DemandStreams, Line
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.actuation import actuate
from knative_sponge.controller.sizing.claims import STALE_S, PodDemand, bounds, claim
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals
from knative_sponge.controller.sizing.retention import Hold, choose
from knative_sponge.controller.sizing.round_robin import RoundRobin
from knative_sponge.controller.sizing.unchanged import UnchangedNodes
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.allocation.lookback import Lookback
from knative_sponge.core.resizing.events import NodeChanged

_log: Final = logging.getLogger(__name__)

_TICK_S: Final = 0.5
"""A node that is short is divided so often: what its pods expect to miss changes with every line."""
_SWEEP_S: Final = 1.0
_REST_S: Final = 3.0
"""Every node has its turn each _SWEEP_S, as not all changes are told; where there was none, it passes its turns for _REST_S."""
_TURN_S: Final = 0.005
"""After so long, whatever else the event loop has to do comes before the other nodes."""
_GATHER_S: Final = 0.01
"""Lines that come together share a division. It never takes more than half of the time: the lease has to be renewed, too."""
_GRAIN_S: Final = 0.001
_WORTH: Final = 0.05
"""See `DivideRules`. What pods expect to miss moves by more than that from one line to the next, while nothing has changed."""


class Optimizer(Protocol):
    """Finds a better division where the greedy one is not proven best (`controller/sizing/cpsat.py`)."""

    async def refine(self, claims: Sequence[Claim], capacity: float, rules: DivideRules, greedy: Division) -> Division:
        """The better of both, soon; never raises."""
        ...


class Divider:
    """All nodes' divisions. new_resizer: the resizer of a pod seen for the first time. `run` it on the leader only."""

    def __init__(
        self,
        cluster: ClusterCapacity,
        new_resizer: Callable[[PodView], PodResizer],
        streams: Callable[[Callable[[Key, Line | None, Line], None]], DemandStreams],
        optimizer: Optimizer,
        metrics: Metrics,
        *,
        growth: GrowthRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resizers: dict[Key, PodResizer] = {}
        self.demands: dict[Key, PodDemand] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.streams = streams(self._heard)
        self._cluster = cluster
        self._new_resizer = new_resizer
        self._optimizer = optimizer
        self._metrics = metrics
        self._clock = clock
        self._rules = DivideRules(worth=_WORTH)
        self._growth = growth or GrowthRules()
        self.quotas = QuotaRefusals()
        self._needs: dict[Key, Lookback] = {}
        self._kept: dict[Key, float] = {}
        """When each pod was sized last of which somebody will look when that is kept no longer."""
        self._dirty: set[str] = set()
        self._short: set[str] = set()
        self._turns = RoundRobin(_SWEEP_S)
        self._settled = UnchangedNodes(_REST_S)
        self._failing: set[str] = set()
        """Nodes whose last division failed and of which people were told."""
        self._refining: dict[str, asyncio.Task[None]] = {}
        self._pods_changed = True
        self._ended = False
        self._wake = asyncio.Event()
        cluster.subscribe(self._pod_changed)

    def touch(self, node: str) -> None:
        """Divide this node anew, soon."""
        self._dirty.add(node)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        ticked_s, took_s = float("-inf"), 0.0
        try:
            while True:
                try:
                    async with asyncio.timeout(_TICK_S):
                        await self._wake.wait()
                        await asyncio.sleep(max(_GATHER_S, took_s))
                except TimeoutError:
                    pass
                self._wake.clear()
                now = self._clock()
                if now - ticked_s >= _TICK_S:
                    ticked_s = now
                    self._dirty |= self._short
                turns = self._turns.due(lambda: self._cluster.nodes, now)
                self._dirty.update(name for name in turns if not self._settled.rests(name, now))
                if self._pods_changed:
                    self._pods_changed = False
                    self.streams.follow({key: _address(resizer.pod) for key, resizer in self.resizers.items()})
                dirty, self._dirty = self._dirty, set()
                if dirty:
                    took_s = await self._divide_all(dirty)
                    self._metrics.divided(took_s)
        finally:
            self.close()

    def close(self) -> None:
        """Nothing is resized any more, whatever else the informers tell while they end. Also where it never ran."""
        self._ended = True
        self.streams.close()
        for task in self._refining.values():
            task.cancel()
        for resizer in self.resizers.values():
            resizer.close()

    def _pod_changed(self, changed: Changed[PodView]) -> None:
        if self._ended:
            return
        key, after = changed.key, changed.after
        resizer = self.resizers.get(key)
        if resizer is not None and (after is None or not managed(after) or after.uid != resizer.pod.uid):
            resizer.close()
            del self.resizers[key]
            self.demands.pop(key, None)
            self._needs.pop(key, None)
            self._kept.pop(key, None)
            self._pods_changed = True
            resizer = None
        if after is None or not managed(after):
            return
        if resizer is None:
            resizer = self.resizers[key] = self._new_resizer(after)
            self._pods_changed = True
        elif _address(after) != _address(resizer.pod):
            self._pods_changed = True
        resizer.see(after)

    def _heard(self, key: Key, before: Line | None, line: Line) -> None:
        resizer = self.resizers.get(key)
        if resizer is None:
            return
        now = self._clock()
        needs = self._needs.get(key)
        if needs is None:
            needs = self._needs[key] = Lookback(self._growth)
        want = needs.add(now, line.want, line.rate, resizer.machine.accepted)
        known = self.demands.get(key)
        changed = known is None or line.want != known.line.want or want != known.want
        self.demands[key] = PodDemand(line, want, now, now if changed or known is None else known.since_s)
        resizer.heard(line.cores)
        if before is None or known is None or changed or now - known.at_s > STALE_S:
            self.touch(resizer.pod.node)

    async def _divide_all(self, names: set[str]) -> float:
        """Returns the seconds that this took, not counting what others did in between."""
        took_s, begun_s = 0.0, self._clock()
        waiting = self._cluster.waiting()
        for name in names:
            now = self._clock()
            if now - begun_s >= _TURN_S:
                took_s += now - begun_s
                await asyncio.sleep(0)
                begun_s = now = self._clock()
            if name in self._refining:
                self._dirty.add(name)
                continue
            try:
                self._divide(name, waiting, now)
            except Exception:
                # What is not understood on one node must not stop the others; it is tried again with the next sweep.
                if name not in self._failing:
                    _log.exception("node %s cannot be divided", name)
                self._failing.add(name)
            else:
                self._failing.discard(name)
        return took_s + self._clock() - begun_s

    def _divide(self, name: str, waiting: Mapping[str, float], now: float) -> None:
        node, pods = self._cluster.node(name), self._cluster.managed_on(name)
        if node is None or not pods:
            self._forget(name)
            return
        reserved = self._cluster.reserved(name)
        capacity = max(0.0, node.cores - reserved - waiting.get(name, 0.0))
        resizers = [self.resizers[pod.key] for pod in pods]
        standing: object | None = None
        if not (short := name in self._short) and not any(resizer.moving for resizer in resizers):
            standing = (node, reserved, capacity, [self._standing(pod, capacity, now) for pod in pods])
            if self._settled.holds(name, standing, now):
                return
        before = self.nodes.get(name)
        if before is not None and max(0.0, node.cores - reserved) > before.capacity + 0.001:
            for resizer in resizers:
                resizer.handle(NodeChanged())
        problem, hold = choose(
            lambda hold: Problem([self._claim(pod, capacity, now, hold) for pod in pods], capacity, self._rules),
            short=short,
        )
        claims, division = problem.claims, problem.solve()
        short = hold == "nothing"
        if short and not division.exact and not division.squeezed:
            self._refining[name] = asyncio.create_task(self._refine(name, claims, capacity, division))
        else:
            self._apply(claims, capacity, division, now)
        self._settled.settle(name, standing if hold == "size" else None)
        wanted, given = sum(each.want for each in claims), sum(division.sizes.values())
        self.nodes[name] = NodeRow(name, node.cores, reserved, given, wanted, short)
        (self._short.add if short else self._short.discard)(name)

    async def _refine(self, name: str, claims: Sequence[Claim], capacity: float, greedy: Division) -> None:
        try:
            better = await self._optimizer.refine(claims, capacity, self._rules, greedy)
            self._apply(claims, capacity, better, self._clock())
        finally:
            del self._refining[name]
            self._wake.set()

    def _apply(self, claims: Sequence[Claim], capacity: float, division: Division, now: float) -> None:
        actuate(claims, capacity, division, self.resizers, self.demands, now, self._growth, self.quotas)

    def _claim(self, pod: PodView, capacity: float, now: float, hold: Hold) -> Claim:
        demand, resizer = self._demand(pod.key, now), self.resizers[pod.key]
        want = None if demand is None else self._held(resizer, demand, now, hold)
        return claim(pod, resizer.machine, demand, want, capacity, now)

    def _held(self, resizer: PodResizer, demand: PodDemand, now: float, hold: Hold) -> float:
        if hold == "nothing":
            return demand.line.want
        kept = now < resizer.sized_s + self._growth.hold_s and not self.quotas.tight(resizer.pod.key[0], now)
        if hold == "size" and kept:
            self._release_in_time(resizer, now)
            return max(demand.want, resizer.machine.asked)
        return demand.want

    def _release_in_time(self, resizer: PodResizer, now: float) -> None:
        """Divide the node again as soon as the pod's size is kept no longer."""
        if self._kept.get(resizer.pod.key) != resizer.sized_s:
            self._kept[resizer.pod.key] = resizer.sized_s
            left_s = resizer.sized_s + self._growth.hold_s - now
            asyncio.get_running_loop().call_later(left_s + _GRAIN_S, self.touch, resizer.pod.node)

    def _demand(self, key: Key, now: float) -> PodDemand | None:
        """What the pod wants, once what it needed too long ago is forgotten."""
        demand, needs = self.demands.get(key), self._needs.get(key)
        if demand is None or needs is None:
            return demand
        want = needs.add(now, demand.line.want, demand.line.rate, self.resizers[key].machine.accepted)
        if want != demand.want:
            demand = self.demands[key] = PodDemand(demand.line, want, demand.at_s, now)
        return demand

    def _standing(self, pod: PodView, capacity: float, now: float) -> object:
        """All of a pod that a division rests on while cores suffice."""
        resizer, demand = self.resizers[pod.key], self._demand(pod.key, now)
        want = None if demand is None or now - demand.at_s > STALE_S else self._held(resizer, demand, now, "size")
        return resizer.machine, resizer.machine.asked, want, bounds(pod, resizer.machine, capacity, now)

    def _forget(self, name: str) -> None:
        self._short.discard(name)
        self._settled.forget(name)
        self.nodes.pop(name, None)


def _address(pod: PodView) -> Address:
    return Address(pod.ip, pod.token, pod.uid)
