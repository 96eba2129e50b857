"""Carries out the resize of one pod: what its state machine asks for, in order. Decides no size, and waits for no other pod."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from knative_sponge.controller.cluster.pod import PodView, resize_body
from knative_sponge.controller.cluster.pod_fields import read_pod
from knative_sponge.controller.kube.client import Kube, Patch
from knative_sponge.controller.kube.resource import POD_RESIZE, Object
from knative_sponge.controller.quarantine import Failures
from knative_sponge.core.quantity import format_cores
from knative_sponge.core.resizing.events import (
    Connected,
    Extra,
    FailureKind,
    PatchDone,
    PatchFailed,
    Report,
    ResizeCommand,
    ResizeEvent,
    Target,
    Tell,
    Tick,
    Told,
    WakeAt,
)
from knative_sponge.core.resizing.events import Patch as PatchSize
from knative_sponge.core.resizing.facts import ResizePhase
from knative_sponge.core.resizing.machine import PodResize
from knative_sponge.core.resizing.phase import Phase
from knative_sponge.errors import KubeConflict, KubeError, KubeNotFound

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patched:
    """The API server has accepted a size of `cores`.

    freed: cores that the patch gives back; below 0 where it takes some. waited_s: seconds from when the pod needed another size
    to the patch; None where it needed none. took_s: seconds that the API server took. answer: the pod as the API server has it.
    """

    cores: float
    freed: float
    waited_s: float | None
    took_s: float
    answer: Object


@dataclass(frozen=True, slots=True)
class Refused:
    """The API server has not accepted a patch. memory: bytes that were part of it and are given up; None where none are."""

    kind: FailureKind
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The resize is in another phase now. applied_s: seconds since the patch, where its size is in force now; else None."""

    phase: ResizePhase
    applied_s: float | None = None


class ResizeEffects(Protocol):
    """What a resizer works with, and whom it tells what has happened."""

    kube: Kube

    def tell(self, pod: PodView, phase: Phase, cores: float, reach: float) -> Awaitable[bool]:
        """Tell the proxy. Returns whether it heard."""
        ...

    def report(self, resizer: PodResizer, report: Report) -> None:
        """Tell people."""
        ...

    def patched(self, resizer: PodResizer, event: Patched) -> None:
        """The API server has accepted a size. The state machine is told after this."""
        ...

    def refused(self, resizer: PodResizer, event: Refused) -> None:
        """The API server has not accepted a patch. The state machine is told after this."""
        ...

    def phase_changed(self, event: PhaseChanged) -> None:
        """The machine of a resizer is in another phase."""
        ...


class PodResizer:
    """The resizer of one pod, from the pod's first sight until `close`. Others read its attributes and write none.

    clock: monotonic seconds.
    """

    def __init__(
        self, pod: PodView, effects: ResizeEffects, clock: Callable[[], float], failures: Failures | None = None
    ) -> None:
        self.pod = pod
        self._steps = (failures or Failures()).of("resizes")
        self.machine = PodResize(clock())
        self.sized_s = -math.inf
        """When another size was accepted last, or a larger one was asked for."""
        self.memory: int | None = None
        """Bytes that the next patch gives the pod beside its cores; None leaves its memory as it is."""
        self._reach = pod.size
        """The most cores that one resize could give the pod now."""
        self._why = ""
        """Why it was given its target, in words."""
        self._needed_s: float | None = None
        """Since when it needs another size than the one that was asked for; None where it does not."""
        self._patch_s: float | None = None
        """When the last patch was sent; None once its size is in force."""
        self._told_s = clock()
        self._told_reach = 0.0
        self._target_s = -math.inf
        """When `set_target` was called last."""
        self._agreed: float | None = None
        """What the proxy said of its size, if that was right and nothing has happened since."""
        self._effects = effects
        self._clock = clock
        self._commands: deque[ResizeCommand] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def see(self, pod: PodView) -> None:
        """The pod as it is now."""
        self.pod = pod
        self.handle(pod.seen())

    def set_target(self, cores: float, need: float, reach: float, why: str, since_s: float) -> None:
        """The pod shall have `cores` now.

        need: what it shall have in the end, without what it takes ahead of need. reach: the most cores that one resize could
        give it. why: for people. since_s: when its want or peak changed last; if that was before the last call, the reason for
        another target is younger, and the target counts as needed since now.
        """
        now = self._clock()
        changed_s, self._target_s = since_s if since_s > self._target_s else now, now
        self._reach = reach
        machine = self.machine
        if abs(need - machine.asked) <= _GRAIN:
            self._needed_s = None
        elif self._needed_s is None:
            self._needed_s = changed_s
        if machine.target is None or abs(cores - machine.target) > _GRAIN:
            self._why = why
            self.handle(Target(cores, min(need, cores)))
        elif machine.need != min(need, cores):
            self.handle(Target(machine.target, min(need, cores)))
        if not 0.95 * reach <= self._told_reach <= 1.05 * reach and not self.busy:
            self.handle(Connected())

    def resize_memory(self, size: int) -> None:
        """The pod shall have `size` bytes of memory. They go with the next patch, which is due now."""
        self.memory = size
        self.handle(Extra(due=True))

    def heard(self, cores: float) -> None:
        """The proxy plans with so many cores. A proxy that is wrong, as after a restart of its container, is told again."""
        if cores == self._agreed:
            return
        machine, quiet_s = self.machine, self._clock() - self._told_s
        if self.busy or quiet_s < _SETTLE_S or machine.size is None:
            return
        expected = (machine.size, self.pod.size) if machine.phase is not ResizePhase.STEADY else (machine.size,)
        if not any(each is not None and abs(each - cores) < _ROUNDING for each in expected):
            _log.info("%s/%s plans with %s cores: telling it again", *self.pod.key, format_cores(cores))
            self._told_s = self._clock()
            self.handle(Connected())
        else:
            self._agreed = cores

    @property
    def moving(self) -> bool:
        """Is something being carried out, or still to be done?"""
        target, asked = self.machine.target, self.machine.asked
        return self._task is not None or (target is not None and abs(target - asked) > _GRAIN)

    @property
    def busy(self) -> bool:
        """Is something being carried out?"""
        return self._task is not None

    def handle(self, event: ResizeEvent) -> None:
        """Let the machine have an event, and carry out what it asks for."""
        if self._closed:
            return  # the pod may have another resizer by now
        self._agreed = None
        before = self.machine.phase
        for command in self.machine.handle(event, self._clock()):
            if isinstance(command, WakeAt):
                self._wake(command.at_s)
            else:
                self._commands.append(command)
                if isinstance(command, PatchSize) and command.cores >= self.machine.asked:
                    self.sized_s = self._clock()  # a shrink is one once it is accepted
        if self._commands and self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"resize {self.pod.key[0]}/{self.pod.key[1]}")
        if self.machine.phase is not before:
            self._effects.phase_changed(PhaseChanged(self.machine.phase, self._applied_s(before)))

    def close(self) -> None:
        """Stop for good; a patch that is under way may still be applied."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _applied_s(self, before: ResizePhase) -> float | None:
        """Seconds since the patch whose size has come into force with this change of phase."""
        waited = before in (ResizePhase.PATCHED, ResizePhase.IN_PROGRESS)
        if self._patch_s is None or not waited or self.machine.phase is not ResizePhase.STEADY:
            return None
        patch_s, self._patch_s = self._patch_s, None
        return self._clock() - patch_s

    def _wake(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if at_s is not None:
            wait_s = max(at_s - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        try:
            self.handle(Tick())
        except Exception as error:
            self._steps.failed(self.pod.key, error)
            self._begin_anew()

    async def _work(self) -> None:
        try:
            while self._commands:
                match self._commands.popleft():
                    case PatchSize(cores):
                        self.handle(await self._patch(cores))
                    case Tell(phase, cores):
                        reach = self._told_reach = self._reach
                        ok = await self._effects.tell(self.pod, phase, cores, reach)
                        self._told_s = self._clock()
                        self.handle(Told(phase, ok))
                    case Report(kind, message) as report:
                        explained = kind == "Resized" and self._why
                        self._effects.report(self, Report(kind, f"{message}: {self._why}") if explained else report)
        except Exception as error:
            # A pod that is not understood must not stop the others.
            self._steps.failed(self.pod.key, error)
            self._commands.clear()
            self.memory = None
            self._begin_anew()
        finally:
            self._task = None

    def _begin_anew(self) -> None:
        """Put another machine in place of the one that failed. It sees the pod at once, or the pod would seem to have no
        cores."""
        if self._closed:
            return
        now = self._clock()
        self.machine = PodResize(now)
        self.machine.next_allowed_s = now + max(_AGAIN_S, self._steps.left_s(self.pod.key))
        for command in self.machine.handle(self.pod.seen(), now):
            if isinstance(command, WakeAt):  # the rest is asked for again when the proxy speaks or a target comes
                self._wake(command.at_s)

    async def _patch(self, cores: float) -> ResizeEvent:
        namespace, name = self.pod.key
        sent_s = self._patch_s = self._clock()
        memory = self.memory
        body = resize_body(self.pod, cores, memory)
        try:
            answer = await self._effects.kube.patch(
                POD_RESIZE, name, body, namespace, kind=Patch.STRATEGIC, read=read_pod
            )
        except KubeError as error:
            return self._patch_failed(cores, memory, error)
        if memory is not None:
            self._leave_memory(memory)
        waited_s, self._needed_s = None if self._needed_s is None else sent_s - self._needed_s, None
        _log.info("%s/%s: %s cores after %.3f s: %s", namespace, name, format_cores(cores), waited_s or 0.0, self._why)
        now = self.sized_s = self._clock()
        self._effects.patched(self, Patched(cores, self.machine.asked - cores, waited_s, now - sent_s, answer))
        return PatchDone(cores, answer["metadata"].get("generation", 0))

    def _patch_failed(self, cores: float, memory: int | None, error: KubeError) -> ResizeEvent:
        kind, refused_memory = _kind(error), None
        if memory is not None and kind in ("refused", "quota"):
            # The patch is sent again without memory. Whether the cores were at fault shows then.
            kind, refused_memory = "conflict", memory
            self._leave_memory(memory)
        self._effects.refused(self, Refused(kind, refused_memory))
        log = logging.INFO if kind in ("conflict", "gone") else logging.WARNING
        _log.log(log, "%s/%s to %s cores: %s", *self.pod.key, format_cores(cores), error)
        return PatchFailed(cores, kind, str(error))

    def _leave_memory(self, carried: int) -> None:
        if self.memory == carried:
            self.memory = None
            self.handle(Extra(due=False))


_AGAIN_S: Final = 5.0
"""No patch is sent for so long after a failure that is not understood."""
_SETTLE_S: Final = 1.5
"""A line that comes so soon after the proxy was told its size may have been written before."""
_ROUNDING: Final = 0.0015
"""Cores by which the size that a proxy says may differ from the one that it was told."""
_GRAIN: Final = 0.0005
"""Half a millicore: sizes that differ by less are the same."""


def _kind(error: KubeError) -> FailureKind:
    if isinstance(error, KubeConflict):
        return "conflict"
    if isinstance(error, KubeNotFound):
        return "gone"
    if error.status == 401 or (error.status == 403 and " cannot patch resource " in str(error)):
        return "busy"  # an API server that has just started does not know its users' rights yet
    if error.status == 403:
        return "quota"
    if 400 <= error.status < 500 and error.status != 429:
        return "refused"
    return "busy"
