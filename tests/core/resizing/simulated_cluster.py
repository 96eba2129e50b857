"""One pod with its API server, kubelet and proxy in virtual time, around the resize under test; written after Kubernetes'
documentation, not after the product."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from knative_sponge.core.demand.planned_size import Size
from knative_sponge.core.resizing.events import (
    Connected,
    Extra,
    FailureKind,
    Patch,
    PatchDone,
    PatchFailed,
    Report,
    ResizeEvent,
    Seen,
    Target,
    Tell,
    Tick,
    Told,
    WakeAt,
)
from knative_sponge.core.resizing.facts import ResizePhase
from knative_sponge.core.resizing.machine import PodResize
from knative_sponge.core.resizing.phase import Phase

Mood = Literal["works", "defers", "refuses", "fails"]
START = 1.0
TENTH = 0.01
"""systemd's step."""


@dataclass(frozen=True)
class Status:
    """What the kubelet wrote last."""

    in_force: float = START
    allocated: float = START
    pending: str = ""
    progress: str = ""
    observed: int = 1


@dataclass
class SimulatedCluster:
    """Everything around one PodResize. `tell` it an event; it carries the commands out and keeps the books."""

    granularity: float = TENTH
    now: float = 0.0
    spec: float = START
    generation: int = 1
    status: Status = field(default_factory=Status)
    quota: float = START
    """What is really in force."""
    mood: Mood = "works"
    proxy: Size = field(default_factory=lambda: Size(START))
    proxy_up: bool = True
    proxy_informed: bool = False
    in_flight: list[float] = field(default_factory=list)
    extra: bool = False
    """Has the next patch more to carry than cores?"""
    patched_s: list[float] = field(default_factory=list)
    watch: deque[Seen] = field(default_factory=deque)
    shown: float | None = None
    """In force, as last delivered by the watch."""
    wake_s: float | None = None
    reports: list[Report] = field(default_factory=list)
    commands: list[tuple[float, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.resize = PodResize(self.now)

    # The controller

    def tell(self, event: ResizeEvent) -> None:
        answers: list[Told] = []
        for command in self.resize.handle(event, self.now):
            if not isinstance(command, WakeAt):
                self.commands.append((self.now, command))
            match command:
                case Patch(cores):
                    self._sent(cores)
                case Tell():
                    answers.append(self._told(command))
                case Report():
                    self.reports.append(command)
                case WakeAt(at_s):
                    assert at_s is None or at_s > self.now
                    self.wake_s = at_s
        for answer in answers:
            self.tell(answer)

    def restart_controller(self) -> None:
        self.resize = PodResize(self.now)
        self.wake_s = None
        self.extra = False
        self.in_flight.clear()
        self.watch.clear()
        self.tell(Connected())
        self.watch.append(self.object())

    def _sent(self, cores: float) -> None:
        assert not self.in_flight, "two patches in flight"
        if self.patched_s:
            assert self.now - self.patched_s[-1] >= 1.0 - 1e-9, "two patches within a second"
        if cores < self.spec and self.proxy_up:
            assert self.proxy.cores <= cores, "a shrink is patched before the proxy knows"
        self.in_flight.append(cores)
        self.patched_s.append(self.now)

    # The API server

    def answer(self, how: Literal["done", "lost", FailureKind]) -> None:
        """The patch in flight ends. lost: it was applied, and its answer never came."""
        cores = self.in_flight.pop()
        if how in ("done", "lost"):
            self.apply(cores)
        match how:
            case "done":
                if self.extra:
                    self.extra = False
                    self.generation += 1
                    self.watch.append(self.object())
                    self.tell(Extra(due=False))
                self.tell(PatchDone(cores, self.generation))
            case "lost":
                self.tell(PatchFailed(cores, "busy", "timeout"))
            case _:
                self.tell(PatchFailed(cores, how, f"{how}, it says"))

    def apply(self, cores: float) -> None:
        """Change spec, whoever asked for it."""
        if round(cores, 3) != self.spec:
            self.spec = round(cores, 3)
            self.generation += 1
            self.watch.append(self.object())

    def object(self) -> Seen:
        """The pod as it is stored now."""
        status = self.status
        return Seen(
            self.spec,
            status.in_force,
            status.pending,
            status.progress,
            "the kubelet's words" if status.pending or status.progress else "",
            self.generation,
            status.observed,
            status.allocated,
        )

    def show(self) -> None:
        """The watch shows the pod as it is now."""
        self.watch.append(self.object())
        while self.watch:
            self.deliver()

    def deliver(self) -> None:
        """The watch shows its next object."""
        seen = self.watch.popleft()
        self.shown = seen.in_force
        self.tell(seen)

    # The kubelet

    def sync(self) -> None:
        """Look at spec, write status with what is in force now, then bring into force what was admitted."""
        before = self.status
        allocated, pending, progress = before.allocated, "", ""
        if before.pending == "Infeasible" and before.observed == self.generation:
            pending = "Infeasible"
        elif self.spec != allocated:
            if self.mood == "refuses":
                pending = "Infeasible"
            elif self.mood == "defers" and self.spec > allocated:
                pending = "Deferred"
            else:
                allocated = self.spec
        wanted = math.ceil(allocated / self.granularity - 1e-9) * self.granularity
        if abs(self.quota - wanted) > 1e-9:
            progress = "Error" if self.mood == "fails" else "InProgress"
        self.status = Status(self.quota, allocated, pending, progress, self.generation)
        if progress == "InProgress":
            self.quota = wanted
        if self.status != before:
            self.watch.append(self.object())

    # The proxy

    def _told(self, tell: Tell) -> Told:
        if not self.proxy_up:
            self.proxy_informed = False
            return Told(tell.phase, ok=False)
        if tell.phase is Phase.PATCHED:
            self.proxy = self.proxy.patched(tell.cores)
        else:
            if tell.cores > self.proxy.cores:
                assert self.shown is not None
                assert tell.cores <= self.shown + 0.011, "a growth is told before the status shows it"
            self.proxy = self.proxy.actuated(tell.cores)
        self.proxy_informed = True
        return Told(tell.phase, ok=True)

    def restart_proxy(self) -> None:
        """It begins with its start size, and its stream comes anew."""
        self.proxy = Size(START)
        self.proxy_informed = False
        self.tell(Connected())

    # Time

    def advance(self, seconds: float) -> None:
        """Let time pass, with every tick that was asked for."""
        end_s = self.now + seconds
        for _ in range(10_000):
            if self.wake_s is None or self.wake_s > end_s:
                break
            self.now, self.wake_s = max(self.now, self.wake_s), None
            self.tell(Tick())
        else:
            raise AssertionError("ticks without end")
        self.now = end_s

    def run(self, seconds: float, step_s: float = 0.25) -> None:
        """Everybody does what they should for a while."""
        for _ in range(round(seconds / step_s)):
            if self.in_flight:
                self.answer("done")
            self.sync()
            while self.watch:
                self.deliver()
            self.advance(step_s)

    def want(self, cores: float) -> None:
        self.tell(Target(cores))

    def want_more(self, *, due: bool = True) -> None:
        """The next patch shall carry something beside the cores."""
        self.extra = due
        self.tell(Extra(due))


def steady(**about: Any) -> SimulatedCluster:
    """A pod of one core that was seen, whose proxy was told, and that may be patched."""
    cluster = SimulatedCluster(**about)
    cluster.show()
    cluster.run(2)
    assert cluster.resize.phase is ResizePhase.STEADY
    cluster.commands.clear()
    return cluster


def commands(cluster: SimulatedCluster) -> list[object]:
    """Those since the last look, without their times."""
    found = [command for _, command in cluster.commands]
    cluster.commands.clear()
    return found


def kinds(cluster: SimulatedCluster) -> list[str]:
    return [report.kind for report in cluster.reports]
