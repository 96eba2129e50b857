"""One pod's resize carried out: what its state machine asks for, in order. Decides no size; another pod is never waited for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from knative_sponge.controller.cluster.pod import PodView, resize_body
from knative_sponge.controller.cluster.pod_fields import read_pod
from knative_sponge.controller.kube.client import Kube, Patch
from knative_sponge.controller.kube.resource import POD_RESIZE, Object
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
from knative_sponge.errors import KubeConflict, KubeError, KubeNotFound

_log: Final = logging.getLogger(__name__)


class ResizeEffects(Protocol):
    """What a resizer works with, and whom it tells."""

    kube: Kube

    def tell(self, pod: PodView, phase: str, cores: float, reach: float) -> Awaitable[bool]:
        """Tell the proxy; did it hear?"""
        ...

    def patched(self, resizer: PodResizer, cores: float, answer: Object) -> None:
        """The API server accepted a size; the machine is told next."""
        ...

    def refused(self, resizer: PodResizer, kind: FailureKind) -> None:
        """The API server did not accept a size, for reasons of this kind."""
        ...

    def report(self, resizer: PodResizer, report: Report) -> None:
        """Tell people."""
        ...

    def moved(self, resizer: PodResizer, before: ResizePhase) -> None:
        """Its phase is another."""
        ...


class PodResizer:
    """The resizer on one pod, from its first sight until `close`."""

    def __init__(self, pod: PodView, around: ResizeEffects, clock: Callable[[], float]) -> None:
        self.pod = pod
        self.machine = PodResize(clock())
        self.reach = pod.size
        """The most cores that one resize could give the pod now."""
        self.why = ""
        """Why it was last given another target, in words."""
        self.wanted_s: float | None = None
        """When that was asked for; None once it was patched."""
        self.patched_s: float | None = None
        """When it was patched; None once it is in force."""
        self.sized_s = -math.inf
        """When it was last given another size, or a larger one was asked for."""
        self.memory: int | None = None
        """Bytes that the next patch gives the pod beside its cores; None leaves them as they are."""
        self.refused_memory: int | None = None
        """Bytes that the API server refused last; whoever asked for them takes note and resets it."""
        self.since_s = self.told_s = clock()
        self._told_reach = 0.0
        self._aimed_s = -math.inf
        self._agreed: float | None = None
        """What the proxy said of its size, if it was right and nothing has happened since."""
        self._around = around
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
        """The pod shall have `cores` now. need: what it shall have in the end, without what it takes ahead of need. reach: see
        the attribute. since_s: when its need last changed; where that was known the last time, something else has changed
        just now."""
        now = self._clock()
        changed_s, self._aimed_s = since_s if since_s > self._aimed_s else now, now
        self.reach = reach
        machine = self.machine
        if abs(need - machine.asked) <= _GRAIN:
            self.wanted_s = None
        elif self.wanted_s is None:
            self.wanted_s = changed_s
        if machine.target is None or abs(cores - machine.target) > _GRAIN:
            self.why = why
            self.handle(Target(cores, min(need, cores)))
        elif machine.need != min(need, cores):
            self.handle(Target(machine.target, min(need, cores)))
        if not 0.95 * reach <= self._told_reach <= 1.05 * reach and not self.busy:
            self.handle(Connected())

    def resize_memory(self, size: int) -> None:
        """The pod shall have `size` bytes of memory as well: with the next patch, which is due now."""
        self.memory = size
        self.handle(Extra(due=True))

    def heard(self, cores: float) -> None:
        """What the proxy plans with. Where that is wrong, as after a restart of its container, it is told anew."""
        if cores == self._agreed:
            return
        machine, quiet_s = self.machine, self._clock() - self.told_s
        if self.busy or quiet_s < _SETTLE_S or machine.size is None:
            return
        expected = (machine.size, self.pod.size) if machine.phase is not ResizePhase.STEADY else (machine.size,)
        if not any(each is not None and abs(each - cores) < _ROUNDING for each in expected):
            _log.info("%s/%s plans with %s cores: telling it again", *self.pod.key, format_cores(cores))
            self.told_s = self._clock()
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
            self._around.moved(self, before)

    def close(self) -> None:
        """Stop for good; a patch that is under way may still be applied."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _wake(self, at_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if at_s is not None:
            wait_s = max(at_s - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.handle, Tick())

    async def _work(self) -> None:
        try:
            while self._commands:
                match self._commands.popleft():
                    case PatchSize(cores):
                        self.handle(await self._patch(cores))
                    case Tell(phase, cores):
                        reach = self._told_reach = self.reach
                        ok = await self._around.tell(self.pod, phase, cores, reach)
                        self.told_s = self._clock()
                        self.handle(Told(phase, ok))
                    case Report() as report:
                        self._around.report(self, report)
        except Exception:
            # A pod that is not understood must not stop the others.
            _log.exception("%s/%s: resizing failed", *self.pod.key)
            self._commands.clear()
            self.memory = None
            self._begin_anew()
        finally:
            self._task = None

    def _begin_anew(self) -> None:
        """Another machine that knows what was seen last: nobody may think that the pod takes no cores."""
        if self._closed:
            return
        now = self._clock()
        self.machine = PodResize(now)
        self.machine.next_allowed_s = now + _AGAIN_S
        for command in self.machine.handle(self.pod.seen(), now):
            if isinstance(command, WakeAt):  # all else is told and tried again when the proxy speaks or a target comes
                self._wake(command.at_s)

    async def _patch(self, cores: float) -> ResizeEvent:
        namespace, name = self.pod.key
        kube = self._around.kube
        self.patched_s = self._clock()
        memory = self.memory
        body = resize_body(self.pod, cores, memory)
        try:
            answer = await kube.patch(POD_RESIZE, name, body, namespace, kind=Patch.STRATEGIC, read=read_pod)
        except KubeError as error:
            kind = _kind(error)
            if memory is not None and kind in ("refused", "quota"):
                # Tried again without memory: whether the cores were at fault shows then.
                kind = "conflict"
                self._leave_memory(memory)
                self.refused_memory = memory
            self._around.refused(self, kind)
            log = logging.INFO if kind in ("conflict", "gone") else logging.WARNING
            _log.log(log, "%s/%s to %s cores: %s", namespace, name, format_cores(cores), error)
            return PatchFailed(cores, kind, str(error))
        if memory is not None:
            self._leave_memory(memory)
        waited_s = 0.0 if self.wanted_s is None else self.patched_s - self.wanted_s
        _log.info("%s/%s: %s cores after %.3f s: %s", namespace, name, format_cores(cores), waited_s, self.why)
        self.sized_s = self._clock()
        self._around.patched(self, cores, answer)
        return PatchDone(cores, answer["metadata"].get("generation", 0))

    def _leave_memory(self, carried: int) -> None:
        if self.memory == carried:
            self.memory = None
            self.handle(Extra(due=False))


_AGAIN_S: Final = 5.0
"""Without a patch after one that nobody understood."""
_SETTLE_S: Final = 1.5
"""What a proxy says of its size may have been written before it was told."""
_ROUNDING: Final = 0.0015
_GRAIN: Final = 0.0005


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
