"""How one pod's size is moved in place: a state machine that says what to patch and what to tell. No I/O in it.

Theory of operation
-------------------
Nothing here is believed for longer than its source says it. The facts:

    target    what the division wants                      spec      what the API server accepted last
    flight    a patch without an answer; at most one       doubt     a patch whose answer was lost; until the next answer
    in force  what the pod's status shows                  lowest    the least that spec was, or may have been, since
                                                                     status last showed spec to be in force
    fresh     status is about this spec, not about an older one (observedGeneration)

The phase is read off them; the first line that holds:

    GONE         there is no such pod               nothing is asked for any more
    PATCHING     a patch is in flight               its answer decides
    INFEASIBLE   fresh, kubelet: never on this node a smaller growth, in the end what is in force (core/resizing/refusals.py)
    DEFERRED     fresh, kubelet: not now            the kubelet tries again by itself; a new target is patched
    ERROR        fresh, kubelet: it failed          patched again after 5, 10, 20, ... 60 s
    STEADY       fresh, status shows spec           only a new target changes anything, or something beside the cores
    IN_PROGRESS  fresh, kubelet: at it              wait
    PATCHED      none of these                      wait; in both, 10 s without a change of status are reported

So a resize runs STEADY ─ Target ► PATCHING ─ PatchDone ► PATCHED ─ Seen ► IN_PROGRESS ─ Seen ► STEADY; a growth's last step
may be DEFERRED first. PatchFailed leads back to where spec and status say: after `refused` and `quota` with a ceiling (or
floor) for 60 s (core/resizing/refusals.py), after `busy` with the doubt that a new patch resolves after 1, 2, 4, ... 30 s.

The proxy's size is the least of in force, lowest and flight. Since each patch first enters `flight`, a shrink is told before
it is patched; since `lowest` ends only with a fresh status that shows spec, a growth is told when it is there. Status comes
up to 1.3 s after the fact and is no clock: the only waits are the spacing of patches, the backoffs and the report above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from knative_sponge.core.backoff import Backoff
from knative_sponge.core.quantity import format_cores
from knative_sponge.core.resizing.events import (
    Connected,
    Extra,
    FailureKind,
    NodeChanged,
    Patch,
    PatchDone,
    PatchFailed,
    QuotaFreed,
    Report,
    ReportKind,
    ResizeCommand,
    ResizeEvent,
    Seen,
    Target,
    Tick,
    Told,
    WakeAt,
)
from knative_sponge.core.resizing.facts import ResizeFacts, ResizePhase, equal
from knative_sponge.core.resizing.proxy_view import ProxyView
from knative_sponge.core.resizing.refusals import Refusals


@dataclass(frozen=True, slots=True)
class ResizeRules:
    """Times in seconds, sizes in cores."""

    min_spacing_s: float = 1.0
    """Time between two patches of one pod: resizes in quick succession race in kubelets."""
    stuck_s: float = 10.0
    """A resize that is not confirmed for so long is reported to people."""
    refusal_s: float = 60.0
    """A refused size is not asked for again before so long."""
    busy_s: tuple[float, float] = (1.0, 30.0)
    """First and longest wait after an API server or a proxy did not answer."""
    error_s: tuple[float, float] = (5.0, 60.0)
    """First and longest wait after a kubelet failed to resize."""
    rounding: float = 0.011
    """Sizes this close count as the same: with systemd, quotas are multiples of 10m."""

    def __post_init__(self) -> None:
        for name in ("min_spacing_s", "stuck_s", "refusal_s", "rounding"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


class PodResize:
    """One pod's resize, from the first sight of the pod to its end. now: monotonic seconds, here and everywhere."""

    def __init__(self, now: float, rules: ResizeRules | None = None) -> None:
        self.rules = rules or ResizeRules()
        self.target: float | None = None
        self.need: float | None = None
        """What the pod needs of the target, where that is less."""
        self.next_allowed_s = now + self.rules.min_spacing_s
        """No patch is sent before this time. At the start, another controller may have sent one a moment ago."""
        self._facts = ResizeFacts(self.rules.rounding)
        self._refusals = Refusals(self.rules.refusal_s)
        self._busy = Backoff(*self.rules.busy_s)
        self._error = Backoff(*self.rules.error_s)
        self._silent = Backoff(*self.rules.busy_s)
        self._gone = self._extra = False
        self._verdict_before = ResizePhase.PATCHED
        self._told: ProxyView | None = None
        self._reported: set[ReportKind] = set()
        self._waiting_s: float | None = None
        self._wake_s: float | None = None

    @property
    def phase(self) -> ResizePhase:
        """Where the resize stands. Before the first sight of a status: PATCHED."""
        if self._gone:
            return ResizePhase.GONE
        return self._facts.verdict if self._facts.flight is None else ResizePhase.PATCHING

    @property
    def size(self) -> float | None:
        """Cores to count on now: the old size during a growth, the new one during a shrink; None before a status was seen."""
        view = self._facts.proxy_view
        return None if view is None else view.cores

    @property
    def asked(self) -> float:
        """Cores that the API server has accepted, or may still accept; 0 before the pod was seen."""
        return self._facts.asked

    @property
    def accepted(self) -> float:
        """Cores that the API server accepted last, as far as is known; 0 before the pod was seen."""
        return self._facts.spec or 0.0

    @property
    def committed(self) -> float:
        """Cores that the pod takes, or may take, of its node, much as the scheduler counts them; 0 before it was seen."""
        return self._facts.committed

    def patches_by(self, at_s: float) -> bool:
        """Is a patch in flight, or may the next one go until then?"""
        return self._facts.flight is not None or self._free_s <= at_s

    @property
    def _free_s(self) -> float:
        """The time from which a patch may be sent, if there is one to send."""
        erring = self._facts.verdict is ResizePhase.ERROR
        return max(self.next_allowed_s, self._busy.until_s, self._error.until_s if erring else -math.inf)

    def ceiling(self, now: float) -> float | None:
        """The most that is worth asking for, as more was refused lately; None when nothing bounds it."""
        return self._refusals.ceiling(now)

    def floor(self, now: float) -> float | None:
        """The least that is worth asking for, as less was refused lately; None when nothing bounds it."""
        return self._refusals.floor(now)

    def handle(self, event: ResizeEvent, now: float) -> list[ResizeCommand]:
        """Take one event at `now`, which never goes back. Returns what the shell has to do, in order."""
        commands: list[ResizeCommand] = []
        if self._gone:
            return commands
        match event:
            case Target(cores, need):
                self.target, self.need = cores, need
            case Extra(due):
                self._extra = due
            case Seen():
                if event.in_force is not None and event.in_force != self._facts.in_force:
                    self._waiting_s = None
                self._facts.see(event)
            case PatchDone(cores, generation):
                self._space(now)
                self._busy.succeeded()
                if not self._facts.accept(cores, generation) and self._facts.verdict is ResizePhase.ERROR:
                    self._error.failed(now)  # the patch changed nothing, so no new status will follow
            case PatchFailed(cores, kind, message):
                self._fail(cores, kind, message, now, commands)
            case Told(_, ok):
                self._hear(ok, now)
            case Connected():
                self._told = None
                self._silent.succeeded()
            case NodeChanged():
                self._refusals.clear("node")
            case QuotaFreed():
                self._refusals.clear("quota")
            case Tick():
                self._wake_s = None
        if not self._gone:
            self._judge(now, commands)
            self._act(now, commands)
        wake_s = self._next_wake(now)
        if wake_s != self._wake_s:
            self._wake_s = wake_s
            commands.append(WakeAt(wake_s))
        return commands

    def _fail(self, cores: float, kind: FailureKind, message: str, now: float, commands: list[ResizeCommand]) -> None:
        self._space(now)
        facts = self._facts
        facts.flight = None
        match kind:
            case "gone":
                self._gone = True
            case "busy":
                facts.lose(cores)
                self._busy.failed(now)
            case "refused" | "quota":
                commands.append(Report("ResizeFailed", f"CPU {format_cores(cores)} was refused: {message}"))
                if facts.spec is None or equal(cores, facts.spec):
                    self._busy.failed(now)
                else:
                    self._refusals.add(cores, facts.spec, now, "quota" if kind == "quota" else "other", self.need)
            case "conflict":
                pass  # the patch is sent again after the spacing

    def _space(self, now: float) -> None:
        # The spacing counts from the answer: the shell may have sent the patch later than it was told to.
        self.next_allowed_s = now + self.rules.min_spacing_s

    def _hear(self, ok: bool, now: float) -> None:
        if self._told is None:
            return  # it is known already that the proxy must be told again
        if ok:
            self._silent.succeeded()
        else:
            self._told = None
            self._silent.failed(now)

    def _judge(self, now: float, commands: list[ResizeCommand]) -> None:
        """Update reports, refusals and back-offs to the present verdict."""
        facts = self._facts
        verdict, before = facts.verdict, self._verdict_before
        self._verdict_before = verdict
        match verdict:
            case ResizePhase.STEADY:
                self._error.succeeded()
                self._reported.clear()
                if facts.last_steady and facts.spec and not equal(facts.last_steady, facts.spec):
                    commands.append(
                        Report("Resized", f"CPU {format_cores(facts.last_steady)} → {format_cores(facts.spec)}")
                    )
            case ResizePhase.DEFERRED:
                self._report("ResizeDeferred", commands)
            case ResizePhase.INFEASIBLE:
                self._report("ResizeInfeasible", commands)
                # Where the sizes agree, the kubelet refused something else than CPU.
                if (
                    before is not verdict
                    and facts.spec
                    and facts.in_force
                    and not facts.same(facts.spec, facts.in_force)
                ):
                    self._refusals.add(facts.spec, facts.in_force, now, "node", self.need)
            case ResizePhase.ERROR if before is not verdict:
                self._report("ResizeFailed", commands)
                self._error.failed(now)
        facts.forget_superseded()
        if facts.flight is None:
            self._judge_waiting(now, commands)

    def _judge_waiting(self, now: float, commands: list[ResizeCommand]) -> None:
        if not self._facts.shown or self._facts.verdict not in (ResizePhase.PATCHED, ResizePhase.IN_PROGRESS):
            self._waiting_s = None
        elif self._waiting_s is None:
            self._waiting_s = now
        elif now >= self._waiting_s + self.rules.stuck_s:
            self._report("ResizeStuck", commands)

    def _report(self, kind: ReportKind, commands: list[ResizeCommand]) -> None:
        """Report each kind once until the pod is steady again."""
        if kind not in self._reported:
            self._reported.add(kind)
            facts = self._facts
            sizes = f"CPU {format_cores(facts.in_force or 0.0)} → {format_cores(facts.spec or 0.0)}: "
            beside = facts.same(facts.in_force, facts.spec)  # the report is about something else than cores
            commands.append(Report(kind, ("" if beside else sizes) + (facts.message or facts.verdict)))

    def _act(self, now: float, commands: list[ResizeCommand]) -> None:
        """Patch when it is time, and tell the proxy what is true. It hears of a shrink before the patch."""
        goal = self._goal(now)
        patching = goal is not None and now >= self._patch_at(goal)
        if patching:
            self._facts.flight = goal
        view = self._facts.proxy_view
        if view is not None and (self._told is not None or patching or now >= self._silent.until_s):
            commands += view.updates_since(self._told)
            self._told = view
        if patching and goal is not None:
            commands.append(Patch(goal))

    def _goal(self, now: float) -> float | None:
        """The size to patch to; None while too little is known or a patch is in flight."""
        facts = self._facts
        goal = facts.spec if self.target is None else self.target
        if goal is None or facts.flight is not None or not (facts.known and facts.shown):
            return None
        return self._refusals.clamp(goal, now)

    def _patch_at(self, goal: float) -> float:
        """When to patch; inf when there is nothing to patch."""
        erring = self._facts.verdict is ResizePhase.ERROR
        if equal(goal, self._facts.spec) and self._facts.doubt is None and not (erring or self._extra):
            return math.inf
        return self._free_s

    def _next_wake(self, now: float) -> float | None:
        if self._gone:
            return None
        times = []
        goal = self._goal(now)
        if goal is not None:
            times.append(self._patch_at(goal))
            if goal != self.target:
                times.append(self._refusals.next_end_s(now) or math.inf)
        if self._waiting_s is not None and "ResizeStuck" not in self._reported:
            times.append(self._waiting_s + self.rules.stuck_s)
        if self._told is None and self._facts.known:
            times.append(self._silent.until_s)
        return min((time for time in times if now < time < math.inf), default=None)
