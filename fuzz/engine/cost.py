"""What an input may cost: CPU seconds and bytes, each a constant and a share of the input's length. Knows no input.

CPU time is that of the process, so a busy machine changes it little; an excess counts only when three runs in a row
exceed. Memory is looked at twice: the growth of the resident set is cheap and rough, tracemalloc is exact and slow.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_RUNS: Final = 3
_ROOM: Final = 64 * 2**20
"""Bytes of address space beyond the bound before an allocation fails: what allocators reserve and do not use."""
_ROUGH: Final = 0.25
"""Share of the bound from which the resident set's growth is measured exactly: freed memory is used again unseen."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one call may take for an input of some length. The defaults hold for reading of any kind.

    Coverage counters slow Python code down about threefold; the seconds allow for it.
    """

    base_s: float = 0.25
    s_per_byte: float = 1e-6
    base_bytes: int = 8 * 2**20
    bytes_per_byte: float = 16.0

    def seconds(self, size: int) -> float:
        """CPU seconds for an input of `size` bytes."""
        return self.base_s + self.s_per_byte * size

    def bytes(self, size: int) -> int:
        """Bytes in use at once for an input of `size` bytes, itself not counted."""
        return self.base_bytes + int(self.bytes_per_byte * size)


class Excess(BaseException):
    """A call costs more than it may. Not an Exception, so that nothing under test takes it for one of its own."""


class TooSlow(Excess):
    """More CPU seconds than the bound; raised within the call, so its traceback says where they go."""


class TooLarge(Excess):
    """More bytes than the bound."""


class Meter:
    """Calls the code under test on behalf of one input and holds it to a bound; remembers the dearest call.

    exact: whether memory is measured exactly for every call.
    Calls may be repeated, so they must change nothing.
    """

    def __init__(self, bound: Bound | None = None, *, exact: bool = False) -> None:
        self.bound = bound or Bound()
        self.cpu_s = 0.0
        self.bytes = 0
        self._exact = exact or not _PEAK.resettable

    def __call__(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result, or its exception, or an Excess. size: bytes of input that it works on."""
        for run in range(_RUNS):
            try:
                return self._once(size, function, *args, **kwargs)
            except TooSlow:
                if run + 1 == _RUNS:
                    raise
        raise AssertionError

    def _once(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        most = self.bound.bytes(size)
        failure: Exception | None = None
        before = _PEAK.reset()
        started = time.process_time()
        try:
            with _address_space(most), _cpu_alarm(self.bound.seconds(size), size):
                result = function(*args, **kwargs)
        except MemoryError as error:
            raise TooLarge(f"more than {most + _ROOM:,} bytes of address space for {size:,} of input") from error
        except Exception as error:  # what it cost counts all the same
            failure = error
        finally:
            self.cpu_s = max(self.cpu_s, time.process_time() - started)
        grown = _PEAK.read() - before
        if self._exact or grown > most * _ROUGH:
            grown = self._measure(size, function, *args, **kwargs)
        self.bytes = max(self.bytes, grown)
        if failure is not None:
            raise failure
        return result

    def _measure(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> int:
        """Bytes that Python's allocators had in use at most, beyond those before the call."""
        most = self.bound.bytes(size)
        tracemalloc.start()
        try:
            # The tracing takes room of its own. What the call raises is its first run's affair.
            with _address_space(4 * most), contextlib.suppress(Exception):
                function(*args, **kwargs)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if peak > most:
            raise TooLarge(f"{peak:,} bytes for {size:,} of input; {most:,} are allowed")
        return peak


@contextlib.contextmanager
def _cpu_alarm(limit_s: float, size: int) -> Iterator[None]:
    """Raise TooSlow in the midst of what takes longer, and again at its end where a parser in C made another error of it."""
    armed = True
    raised: list[TooSlow] = []

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if armed:
            raised.append(TooSlow(f"more than {limit_s:.2f} s of CPU for {size:,} bytes of input"))
            raise raised[-1]

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if raised:
            raise raised[0]


@contextlib.contextmanager
def _address_space(most: int) -> Iterator[None]:
    """Let allocations fail that would take the process far beyond: the machine is others' as well."""
    with open("/proc/self/statm", "rb", buffering=0) as pages:
        used = int(pages.read(64).split(maxsplit=1)[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + most + _ROOM
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _ResidentPeak:
    """The largest resident set since the last reset, in bytes (Linux: proc(5), `clear_refs`, `VmHWM`).

    getrusage(2) tells the same faster, but of a process and the one that started it the larger.
    """

    def __init__(self) -> None:
        try:
            self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
            self.resettable = True
        except OSError:
            self.resettable = False

    def reset(self) -> int:
        """Forget the peak. Returns the present size."""
        if self.resettable:
            os.pwrite(self._reset, b"5", 0)
        return self.read()

    def read(self) -> int:
        """The peak; 0 where the system does not tell it."""
        if not self.resettable:
            return 0
        _, _, rest = os.pread(self._status, 4096, 0).partition(b"VmHWM:")
        return int(rest.split(maxsplit=1)[0]) * 1024


_PEAK: Final = _ResidentPeak()
