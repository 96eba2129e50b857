"""The fast loop: divides each node's cores among its managed pods and gives every pod its target (docs/design.md §4.8).

A node is divided soon after something about it has changed, and soon after one of its pods wants another size. A node that is
short is divided twice a second. While cores suffice, sizes are held for a while (`core/allocation/growth.py`). No proxy waits
for any of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol

from knative_sponge.controller.cluster.capacity import ClusterCapacity, managed
from knative_sponge.controller.cluster.pod import PodView, own_token
from knative_sponge.controller.kube.informer import Changed
from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.proxies.demand_streams import Address, DemandStreams
from knative_sponge.controller.quarantine import Failures
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.actuation import actuate
from knative_sponge.controller.sizing.claim_holds import Hold
from knative_sponge.controller.sizing.claims import bounds, claim, kept
from knative_sponge.controller.sizing.credible import credible
from knative_sponge.controller.sizing.node_problem import NodeProblem, Part, merged, node_problem
from knative_sponge.controller.sizing.node_state import NodeState
from knative_sponge.controller.sizing.pod_resizer import PodResizer
from knative_sponge.controller.sizing.pod_state import PodState
from knative_sponge.controller.sizing.quota_refusals import QuotaRefusals
from knative_sponge.controller.sizing.round_robin import RoundRobin
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.resizing.events import NodeChanged
from knative_sponge.wire.demand import DemandLine

_log: Final = logging.getLogger(__name__)

_TICK_S: Final = 0.5
"""Between two divisions of a node that is short: the misses that its pods expect change with every line."""
_SWEEP_S: Final = 1.0
"""Each node is looked at once in this time, since some changes are told by nobody."""
_REST_S: Final = 3.0
"""A node that was found unchanged is not looked at for this time."""
_TURN_S: Final = 0.005
"""After this time of dividing, the event loop runs its other tasks before the next node is divided."""
_GATHER_S: Final = 0.01
"""Lines that come within this time share a division. The wait is longer where a division takes longer: at least half of the
time is left to other tasks, since the lease has to be renewed."""
_GRAIN_S: Final = 0.001
_WAITING: Final = "pods that wait"
_NODE_RESTS_S: Final = 5.0
"""A node whose division fails is left alone for so long at most: its pods are many people's."""
_WORTH: Final = 0.05
"""See `DivideRules`. Its default is too small here: under a steady load the misses that a pod expects vary by more than that
from line to line."""


class Optimizer(Protocol):
    """Looks for a better division where the greedy one is not proven best (`controller/sizing/cpsat.py`)."""

    async def refine(self, claims: Sequence[Claim], capacity: float, rules: DivideRules, greedy: Division) -> Division:
        """The better of both, soon. Never raises."""
        ...


class Divider:
    """All nodes' divisions. `run` it on the leader only.

    new_resizer: makes the resizer of a pod that is seen for the first time. streams: makes the streams that tell their argument
    each line. quotas: what the API server has refused so far. token: of a pod's control routes; empty is not known. failures:
    where pods and nodes that fail are reported.
    """

    def __init__(
        self,
        cluster: ClusterCapacity,
        new_resizer: Callable[[PodView], PodResizer],
        streams: Callable[[Callable[[Key, DemandLine], None]], DemandStreams],
        optimizer: Optimizer,
        metrics: Metrics,
        quotas: QuotaRefusals,
        *,
        token: Callable[[PodView], str] = own_token,
        growth: GrowthRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        failures: Failures | None = None,
    ) -> None:
        failures = failures or Failures()
        self._pod_steps, self._node_steps = failures.of("claims"), failures.of("nodes", _NODE_RESTS_S)
        self._pods: dict[Key, PodState] = {}
        self._nodes: dict[str, NodeState] = {}
        self._pods_seen = MappingProxyType(self._pods)
        self._streams = streams(self._heard)
        self._cluster = cluster
        self._new_resizer = new_resizer
        self._optimizer = optimizer
        self._metrics = metrics
        self._quotas = quotas
        self._token = token
        self._clock = clock
        self._rules = DivideRules(tolerance=_WORTH)
        self._growth = growth or GrowthRules()
        self._dirty: set[str] = set()
        """Nodes to divide next."""
        self._turns = RoundRobin(_SWEEP_S)
        self._pods_changed = True
        """Have the addresses to follow changed?"""
        self._ended = False
        self._wake = asyncio.Event()
        cluster.subscribe(self._pod_changed)

    @property
    def pods(self) -> Mapping[Key, PodState]:
        """All managed pods, as they are now. To read, not to call methods that change them."""
        return self._pods_seen

    def rows(self) -> dict[str, NodeRow]:
        """The last division of each node with managed pods."""
        return {name: row for name, node in self._nodes.items() if (row := node.row) is not None}

    def touch(self, node: str) -> None:
        """Divide this node soon."""
        self._dirty.add(node)
        self._wake.set()

    def tokens_changed(self) -> None:
        """Other tokens are known than before: streams that used the former begin anew."""
        self._pods_changed = True
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
                    self._dirty.update(name for name, node in self._nodes.items() if node.short)
                turns = self._turns.due(lambda: self._cluster.nodes, now)
                self._dirty.update(name for name in turns if not self._rests(name, now))
                if self._pods_changed:
                    self._pods_changed = False
                    self._streams.follow({key: self._address(pod.resizer.pod) for key, pod in self._pods.items()})
                dirty, self._dirty = self._dirty, set()
                if dirty:
                    took_s = await self._divide_all(dirty)
                    self._metrics.divided(took_s)
        finally:
            self.close()

    def close(self) -> None:
        """Resize nothing from now on, whatever the informers tell while they end. `run` need not have been called."""
        self._ended = True
        self._streams.close()
        for node in self._nodes.values():
            node.close()
        for pod in self._pods.values():
            pod.resizer.close()

    def _pod_changed(self, changed: Changed[PodView]) -> None:
        if self._ended:
            return
        key, after = changed.key, changed.after
        known = self._pods.get(key)
        if known is not None and (after is None or not managed(after) or after.uid != known.resizer.pod.uid):
            known.resizer.close()
            del self._pods[key]
            self._pods_changed = True
            known = None
        if after is None or not managed(after):
            return
        if known is None:
            known = self._pods[key] = PodState(self._new_resizer(after), self._growth, self._clock())
            self._pods_changed = True
        elif self._address(after) != self._address(known.resizer.pod):
            self._pods_changed = True
        known.resizer.see(after)

    def _heard(self, key: Key, line: DemandLine) -> None:
        pod = self._pods.get(key)
        if pod is None:
            return
        node = self._cluster.node(pod.resizer.pod.node)
        if node is not None:
            line = credible(line, max(node.cores, pod.resizer.machine.asked))
        matters = pod.hear(line, self._clock())
        pod.resizer.heard(line.cores)
        if matters:
            self.touch(pod.resizer.pod.node)

    def _rests(self, name: str, now: float) -> bool:
        node = self._nodes.get(name)
        return node is not None and node.rests(now)

    async def _divide_all(self, names: set[str]) -> float:
        """Returns the seconds that this took, not counting what others did in between."""
        took_s, begun_s = 0.0, self._clock()
        waiting = self._node_steps.run(_WAITING, self._cluster.waiting) or {}
        for name in names:
            now = self._clock()
            if now - begun_s >= _TURN_S:
                took_s += now - begun_s
                await asyncio.sleep(0)
                begun_s = now = self._clock()
            node = self._nodes.get(name)
            if node is not None and node.refining:
                self._dirty.add(name)
                continue
            # What is not understood on one node must not stop the others.
            self._node_steps.run(name, partial(self._divide, name, waiting, now))
        return took_s + self._clock() - begun_s

    def _divide(self, name: str, waiting: Mapping[str, float], now: float) -> None:
        view, managed_pods = self._cluster.node(name), self._cluster.managed_on(name)
        if view is None or not managed_pods:
            self._nodes.pop(name, None)
            return
        pods = [self._pods[pod.key] for pod in managed_pods if pod.key in self._pods]
        # A pod that could not be taken over keeps what it has.
        lost = sum(max(pod.size, pod.in_force or 0.0) for pod in managed_pods if pod.key not in self._pods)
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = NodeState(_REST_S)
        reserved = self._cluster.reserved(name) + lost
        capacity = max(0.0, view.cores - reserved - waiting.get(name, 0.0))
        short, inputs = node.short, None
        if not short and not any(pod.resizer.moving for pod in pods):
            inputs = (view, reserved, capacity, [self._inputs(pod, capacity, now) for pod in pods])
            if node.unchanged(inputs, now):
                return
        if node.row is not None and max(0.0, view.cores - reserved) > node.row.capacity + 0.001:
            for pod in pods:
                self._pod_steps.run(pod.resizer.pod.key, partial(pod.resizer.handle, NodeChanged()))
        problem = node_problem(
            lambda hold: [self._claim(pod, capacity, now, hold) for pod in pods],
            capacity,
            self._rules,
            short=short,
            tenants=sorted({pod.key[0] for pod in managed_pods}),
        )
        divisions = [part.problem.solve() for part in problem.parts]
        hold, division = problem.hold, merged(divisions)
        short = hold == "nothing"
        if short and any(map(_improvable, problem.parts, divisions)):
            node.refine(asyncio.create_task(self._refine(name, node, problem, capacity, divisions)))
        else:
            self._actuate(problem, capacity, division, now)
        wanted, given = sum(each.want for each in problem.claims), sum(division.sizes.values())
        node.divided(
            NodeRow(name, view.cores, reserved, given, wanted, short),
            # Where not all sizes can be held, wants and curves count as well, which are none of the inputs.
            inputs if hold == "size" else None,
        )

    async def _refine(
        self, name: str, node: NodeState, problem: NodeProblem, capacity: float, greedy: Sequence[Division]
    ) -> None:
        try:
            better = await asyncio.gather(*map(self._refined, problem.parts, greedy))
            self._actuate(problem, capacity, merged(better), self._clock())
        except Exception as error:
            self._node_steps.failed(name, error)
        finally:
            node.refined()
            self._wake.set()

    async def _refined(self, part: Part, greedy: Division) -> Division:
        if not _improvable(part, greedy):
            return greedy
        problem = part.problem
        return await self._optimizer.refine(problem.claims, problem.capacity / 1000, self._rules, greedy)

    def _actuate(self, problem: NodeProblem, capacity: float, division: Division, now: float) -> None:
        actuate(
            problem.claims,
            capacity,
            division,
            self._pods,
            now,
            self._growth,
            self._quotas,
            fair=problem.fair,
            steps=self._pod_steps,
        )

    def _claim(self, pod: PodState, capacity: float, now: float, hold: Hold) -> Claim:
        """What the pod asks for. A pod that is not understood keeps its size, and its node is divided among the others."""
        resizer = pod.resizer
        found = self._pod_steps.run(
            resizer.pod.key,
            lambda: claim(
                resizer.pod, resizer.machine, pod.demand, self._cores(pod, hold, now), capacity, now, pod.admitted
            ),
        )
        return kept(resizer.pod, resizer.machine) if found is None else found

    def _cores(self, pod: PodState, hold: Hold, now: float) -> float | None:
        if hold == "size" and not self._holds(pod, now):
            hold = "peak"
        return pod.cores(hold, now)

    def _holds(self, pod: PodState, now: float) -> bool:
        """Does the pod hold its size still? Its node is divided as soon as that ends, not with the next line."""
        left_s, view = pod.hold_ends_in(now), pod.resizer.pod
        if left_s <= 0 or self._quotas.tight(view.key[0], now):
            return False
        if pod.new_hold():
            asyncio.get_running_loop().call_later(left_s + _GRAIN_S, self.touch, view.node)
        return True

    def _inputs(self, pod: PodState, capacity: float, now: float) -> object:
        """All of a pod that a division follows from while cores suffice."""
        resizer = pod.resizer
        machine = resizer.machine

        def inputs() -> object:
            cores = self._cores(pod, "size", now)
            return machine, machine.asked, cores, bounds(resizer.pod, machine, capacity, now)

        return self._pod_steps.run(resizer.pod.key, inputs)

    def _address(self, pod: PodView) -> Address:
        return Address(pod.ip, self._token(pod), pod.uid)


def _improvable(part: Part, division: Division) -> bool:
    """May a solver find a better division of this part?"""
    return part.hold == "nothing" and not division.exact and not division.squeezed
