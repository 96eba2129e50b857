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

from knative_sponge.controller.cluster.capacity import Cluster, managed
from knative_sponge.controller.cluster.pod import PodView
from knative_sponge.controller.kube.resource import Key
from knative_sponge.controller.proxies.demand_streams import Address, DemandStreams, Line
from knative_sponge.controller.reporting.metrics import Metrics
from knative_sponge.controller.reporting.rows import NodeRow
from knative_sponge.controller.sizing.actuation import actuate
from knative_sponge.controller.sizing.claims import STALE_S, Wish, bounds, claim
from knative_sponge.controller.sizing.pod_resizer import Hand
from knative_sponge.controller.sizing.quota_refusals import Quotas
from knative_sponge.controller.sizing.retention import Hold, choose
from knative_sponge.controller.sizing.round_robin import Turns
from knative_sponge.controller.sizing.unchanged import Settled
from knative_sponge.core.allocation.divide import Claim, DivideRules, Division, Problem
from knative_sponge.core.allocation.growth import GrowthRules
from knative_sponge.core.allocation.lookback import Needs
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
    """All nodes' divisions. new_hand: the hand of a pod seen for the first time. `run` it on the leader only."""

    def __init__(
        self,
        cluster: Cluster,
        new_hand: Callable[[PodView], Hand],
        streams: Callable[[Callable[[Key, Line | None, Line], None]], DemandStreams],
        optimizer: Optimizer,
        metrics: Metrics,
        *,
        growth: GrowthRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hands: dict[Key, Hand] = {}
        self.wishes: dict[Key, Wish] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.streams = streams(self._heard)
        self._cluster = cluster
        self._new_hand = new_hand
        self._optimizer = optimizer
        self._metrics = metrics
        self._clock = clock
        self._rules = DivideRules(worth=_WORTH)
        self._growth = growth or GrowthRules()
        self.quotas = Quotas()
        self._needs: dict[Key, Needs] = {}
        self._kept: dict[Key, float] = {}
        """When each pod was sized last of which somebody will look when that is kept no longer."""
        self._dirty: set[str] = set()
        self._short: set[str] = set()
        self._turns = Turns(_SWEEP_S)
        self._settled = Settled(_REST_S)
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
                    self.streams.follow({key: _address(hand.pod) for key, hand in self.hands.items()})
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
        for hand in self.hands.values():
            hand.close()

    def _pod_changed(self, before: PodView | None, after: PodView | None) -> None:
        if self._ended:
            return
        key = (after or before).key  # type: ignore[union-attr]
        hand = self.hands.get(key)
        if hand is not None and (after is None or not managed(after) or after.uid != hand.pod.uid):
            hand.close()
            del self.hands[key]
            self.wishes.pop(key, None)
            self._needs.pop(key, None)
            self._kept.pop(key, None)
            self._pods_changed = True
            hand = None
        if after is None or not managed(after):
            return
        if hand is None:
            hand = self.hands[key] = self._new_hand(after)
            self._pods_changed = True
        elif _address(after) != _address(hand.pod):
            self._pods_changed = True
        hand.see(after)

    def _heard(self, key: Key, before: Line | None, line: Line) -> None:
        hand = self.hands.get(key)
        if hand is None:
            return
        now = self._clock()
        needs = self._needs.get(key)
        if needs is None:
            needs = self._needs[key] = Needs(self._growth)
        want = needs.add(now, line.want, line.rate, hand.machine.accepted)
        known = self.wishes.get(key)
        changed = known is None or line.want != known.line.want or want != known.want
        self.wishes[key] = Wish(line, want, now, now if changed or known is None else known.since_s)
        hand.heard(line.cores)
        if before is None or known is None or changed or now - known.at_s > STALE_S:
            self.touch(hand.pod.node)

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
        hands = [self.hands[pod.key] for pod in pods]
        standing: object | None = None
        if not (short := name in self._short) and not any(hand.moving for hand in hands):
            standing = (node, reserved, capacity, [self._standing(pod, capacity, now) for pod in pods])
            if self._settled.holds(name, standing, now):
                return
        before = self.nodes.get(name)
        if before is not None and max(0.0, node.cores - reserved) > before.capacity + 0.001:
            for hand in hands:
                hand.handle(NodeChanged())
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
        actuate(claims, capacity, division, self.hands, self.wishes, now, self._growth, self.quotas)

    def _claim(self, pod: PodView, capacity: float, now: float, hold: Hold) -> Claim:
        wish, hand = self._wish(pod.key, now), self.hands[pod.key]
        want = None if wish is None else self._held(hand, wish, now, hold)
        return claim(pod, hand.machine, wish, want, capacity, now)

    def _held(self, hand: Hand, wish: Wish, now: float, hold: Hold) -> float:
        if hold == "nothing":
            return wish.line.want
        kept = now < hand.sized_s + self._growth.hold_s and not self.quotas.tight(hand.pod.key[0], now)
        if hold == "size" and kept:
            self._release_in_time(hand, now)
            return max(wish.want, hand.machine.asked)
        return wish.want

    def _release_in_time(self, hand: Hand, now: float) -> None:
        """Divide the node again as soon as the pod's size is kept no longer."""
        if self._kept.get(hand.pod.key) != hand.sized_s:
            self._kept[hand.pod.key] = hand.sized_s
            left_s = hand.sized_s + self._growth.hold_s - now
            asyncio.get_running_loop().call_later(left_s + _GRAIN_S, self.touch, hand.pod.node)

    def _wish(self, key: Key, now: float) -> Wish | None:
        """What the pod wants, once what it needed too long ago is forgotten."""
        wish, needs = self.wishes.get(key), self._needs.get(key)
        if wish is None or needs is None:
            return wish
        want = needs.add(now, wish.line.want, wish.line.rate, self.hands[key].machine.accepted)
        if want != wish.want:
            wish = self.wishes[key] = Wish(wish.line, want, wish.at_s, now)
        return wish

    def _standing(self, pod: PodView, capacity: float, now: float) -> object:
        """All of a pod that a division rests on while cores suffice."""
        hand, wish = self.hands[pod.key], self._wish(pod.key, now)
        want = None if wish is None or now - wish.at_s > STALE_S else self._held(hand, wish, now, "size")
        return hand.machine, hand.machine.asked, want, bounds(pod, hand.machine, capacity, now)

    def _forget(self, name: str) -> None:
        self._short.discard(name)
        self._settled.forget(name)
        self.nodes.pop(name, None)


def _address(pod: PodView) -> Address:
    return Address(pod.ip, pod.token, pod.uid)
