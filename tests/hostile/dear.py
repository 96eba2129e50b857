"""What a piece of work costs: CPU seconds and bytes of memory, each with an end for what never ends by itself."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class TooDear(BaseException):
    """The work took more CPU seconds than it may; no handler of the work's own errors catches it."""


@contextmanager
def at_most(cpu_s: float) -> Iterator[None]:
    """Raises TooDear once this process has computed for so long, whatever other processes do."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooDear(f"more than {cpu_s:g} CPU seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass(frozen=True, slots=True)
class Cost:
    """cpu_s: computed. grown_bytes: how much larger the process was at its largest. outcome: what was returned or raised."""

    cpu_s: float
    grown_bytes: int
    outcome: object


def cost_of(work: Callable[[], object], *, most_cpu_s: float = 10.0, most_bytes: int = 3 * 2**30) -> Cost:
    """What the work costs, in a process of its own; one that wants far more than allowed is ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _report(work, writing, most_cpu_s, most_bytes)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        report = pipe.read()
    os.waitpid(child, 0)
    assert report, f"the work took more than {most_cpu_s:g} CPU seconds or {most_bytes} bytes"
    return Cost(*pickle.loads(report))


def _report(work: Callable[[], object], writing: int, most_cpu_s: float, most_bytes: int) -> None:
    try:
        used = int(time.process_time() + most_cpu_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used, used))
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        try:
            outcome = work()
        except Exception as error:
            outcome = error
        cpu_s = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) * 1024
        shown = repr(outcome)[:1000] if isinstance(outcome, BaseException) else outcome
        os.write(writing, pickle.dumps((cpu_s, grown, shown)))
    finally:
        os._exit(0)
