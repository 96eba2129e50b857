"""The fast loop: divides each node's cores among its managed pods and gives every pod its target (design §4, Divide).

A node is divided anew when something about it changed, soon after a proxy wants another size, and at least every second.
Shrinks go out first. A growth goes out as soon as there is room for all of it, counting what the API server has accepted; when
nothing is shrinking any more, it takes what room there is. The proxies never wait for any of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from knative_sponge.controller.claims import STALE_S, Wish, bounds, claim
from knative_sponge.controller.cluster import Cluster, managed
from knative_sponge.controller.hand import Hand
from knative_sponge.controller.metrics import Metrics
from knative_sponge.controller.podview import PodView
from knative_sponge.controller.resource import Key
from knative_sponge.controller.rows import NodeRow
from knative_sponge.controller.streams import Address, DemandStreams, Line
from knative_sponge.core.allocate import Claim, DivideRules, Division, Problem
from knative_sponge.core.peak import Peak
from knative_sponge.core.quantity import format_cores
from knative_sponge.core.resize_events import NodeChanged

_log: Final = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_SWEEP_S: Final = 1.0
"""Every node is divided at least so often: needs fade, and silence has to be noticed."""
_GATHER_S: Final = 0.01
"""Lines that come together share a division. It never takes more than half of the time: the lease has to be renewed, too."""
_WORTH: Final = 0.05
"""See `DivideRules`. What pods expect to miss moves by more than that from one line to the next, while nothing has changed."""
HOLD_S: Final = 5.0
"""A pod shrinks to the largest need of so long. The proxies' own second costs fewer cores, and several times the resizes."""


class Optimizer(Protocol):
    """Finds a better division where the greedy one is not proven best (`controller/cpsat.py`)."""

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
        self._peaks: dict[Key, Peak] = {}
        self._dirty: set[str] = set()
        self._short: set[str] = set()
        self._settled: dict[str, object] = {}
        """Of each node that is not short: what its last division rested on."""
        self._failing: set[str] = set()
        """Nodes whose last division failed and of which people were told."""
        self._refining: dict[str, asyncio.Task[None]] = {}
        self._pods_changed = True
        self._wake = asyncio.Event()
        cluster.subscribe(self._pod_changed)

    def touch(self, node: str) -> None:
        """Divide this node anew, soon."""
        self._dirty.add(node)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        swept_s = ticked_s = float("-inf")
        took_s = 0.0
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
                    self._dirty |= self._short  # what its pods expect to miss changes with every line
                if now - swept_s >= _SWEEP_S:
                    swept_s = now
                    self._dirty.update(self._cluster.nodes)
                    live, silent = self.streams.counts()
                    self._metrics.streams(live=live, stale=0, down=silent)
                if self._pods_changed:
                    self._pods_changed = False
                    self.streams.follow({key: _address(hand.pod) for key, hand in self.hands.items()})
                dirty, self._dirty = self._dirty, set()
                if dirty:
                    self._divide_all(dirty, now)
                    took_s = self._clock() - now
                    self._metrics.divided(took_s)
        finally:
            self.streams.close()
            for task in self._refining.values():
                task.cancel()
            for hand in self.hands.values():
                hand.close()

    def _pod_changed(self, before: PodView | None, after: PodView | None) -> None:
        key = (after or before).key  # type: ignore[union-attr]
        hand = self.hands.get(key)
        if hand is not None and (after is None or not managed(after) or after.uid != hand.pod.uid):
            hand.close()
            del self.hands[key]
            self.wishes.pop(key, None)
            self._peaks.pop(key, None)
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
        peak = self._peaks.get(key)
        if peak is None:
            peak = self._peaks[key] = Peak(HOLD_S)
        want = peak.add(now, line.want)
        self.wishes[key] = Wish(line, want, now)
        hand.heard(line.cores)
        if before is None or line.want != before.want:
            self.touch(hand.pod.node)

    def _divide_all(self, names: set[str], now: float) -> None:
        waiting = self._cluster.waiting()
        for name in names:
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

    def _divide(self, name: str, waiting: Mapping[str, float], now: float) -> None:
        node, pods = self._cluster.node(name), self._cluster.managed_on(name)
        if node is None or not pods:
            self._forget(name)
            return
        reserved = self._cluster.reserved(name)
        capacity = max(0.0, node.cores - reserved - waiting.get(name, 0.0))
        standing = (node, reserved, capacity, [self._standing(pod, capacity, now) for pod in pods])
        if self._settled.get(name) == standing:
            return
        before = self.nodes.get(name)
        if before is not None and abs(before.capacity - max(0.0, node.cores - reserved)) > 0.001:
            for pod in pods:
                self.hands[pod.key].handle(NodeChanged())
        claims = [self._claim(pod, capacity, now, held=True) for pod in pods]
        problem = Problem(claims, capacity, self._rules)
        if problem.short:
            # Holding on to cores for what was needed a moment ago is for nodes that have some to spare.
            claims = [self._claim(pod, capacity, now, held=False) for pod in pods]
            problem = Problem(claims, capacity, self._rules)
        division = problem.solve()
        if not division.short:
            self._settled[name] = standing
        else:
            self._settled.pop(name, None)
        if division.short and not division.exact and not division.squeezed:
            self._refining[name] = asyncio.create_task(self._refine(name, claims, capacity, division))
        else:
            self._apply(claims, capacity, division, now)
        wanted, given = sum(each.want for each in claims), sum(division.sizes.values())
        self.nodes[name] = NodeRow(name, node.cores, reserved, given, wanted, division.short)
        self._metrics.node(name, allocatable=node.cores, reserved=reserved, divided=given, short=division.short)
        (self._short.add if division.short else self._short.discard)(name)

    async def _refine(self, name: str, claims: Sequence[Claim], capacity: float, greedy: Division) -> None:
        try:
            better = await self._optimizer.refine(claims, capacity, self._rules, greedy)
            self._apply(claims, capacity, better, self._clock())
        finally:
            del self._refining[name]
            self._wake.set()

    def _apply(self, claims: Sequence[Claim], capacity: float, division: Division, now: float) -> None:
        present = [
            (hand, each, division.sizes[each.key])
            for each in claims
            if isinstance(each.key, tuple) and (hand := self.hands.get(each.key)) is not None
        ]
        spare = capacity - sum(each.low for each in claims)
        for hand, each, size in present:
            if size <= hand.machine.asked:
                self._aim(hand, each, spare, size, now)
        shrinking = any(size < hand.machine.asked for hand, _, size in present)
        room = capacity - sum(hand.machine.asked for hand, _, _ in present)
        growing = [(hand, each, size) for hand, each, size in present if size > hand.machine.asked]
        growing.sort(key=lambda found: (-found[1].weight, found[2] - found[0].machine.asked))
        for hand, each, size in growing:
            asked = hand.machine.asked
            if size - asked > room + 0.0005:
                # What shrinks wakes this loop when it has; until then the pod keeps what it asked for.
                given = asked if shrinking or room < _LEAST_STEP else round(asked + room - 0.0005, 3)
            else:
                given = size
            room -= given - asked
            self._aim(hand, each, spare, given, now)

    def _aim(self, hand: Hand, each: Claim, spare: float, size: float, now: float) -> None:
        """spare: cores of the node above the least of all its pods."""
        wish = self.wishes.get(hand.pod.key)
        reach = max(size, min(each.high, each.low + spare))
        hand.aim(size, reach, _why(each, size), now if wish is None else wish.at_s)

    def _claim(self, pod: PodView, capacity: float, now: float, *, held: bool) -> Claim:
        """held: see `_wish`."""
        return claim(pod, self.hands[pod.key].machine, self._wish(pod.key, now, held=held), capacity, now)

    def _wish(self, key: Key, now: float, *, held: bool) -> Wish | None:
        """held: the largest need of the last HOLD_S, not only the present one."""
        wish, peak = self.wishes.get(key), self._peaks.get(key)
        if wish is None or peak is None:
            return wish
        want = peak.add(now, wish.line.want) if held else wish.line.want
        if want != wish.want:
            wish = self.wishes[key] = Wish(wish.line, want, wish.at_s)
        return wish

    def _standing(self, pod: PodView, capacity: float, now: float) -> object:
        """All of a pod that a division rests on while cores suffice."""
        hand, wish = self.hands[pod.key], self._wish(pod.key, now, held=True)
        want = None if wish is None or now - wish.at_s > STALE_S else wish.want
        return hand.machine, hand.busy, hand.machine.asked, want, bounds(pod, hand.machine, capacity, now)

    def _forget(self, name: str) -> None:
        self._short.discard(name)
        self._settled.pop(name, None)
        if self.nodes.pop(name, None) is not None:
            self._metrics.forget_node(name)


_LEAST_STEP: Final = 0.02


def _address(pod: PodView) -> Address:
    return Address(pod.ip, pod.token, pod.uid)


def _why(each: Claim, size: float) -> str:
    """Why a pod's size changes, for people."""
    if size > each.cores:
        misses = _misses(each, each.cores)
        return f"{misses:.3g} rows/s would miss" if misses >= 0.005 else "room for what may come"
    if size < each.want:
        return f"the node is short: {format_cores(each.want)} wanted"
    return "enough for what arrives"


def _misses(each: Claim, cores: float) -> float:
    for size, misses in reversed(each.curve):
        if size <= cores + 0.0005:
            return misses
    return each.curve[0][1] if each.curve else 0.0
