"""What an object costs that a loop cannot handle: itself. One mechanism for every loop of the controller; it decides no more.

Objects come from tenants, answers from their pods. Whatever is in them, the step that a loop takes for one object may fail for
that object alone: it is reported, counted and left alone for a while, and the loop goes on with the others. A loop's own faults
show the same way, so a mistake in the program is as visible as before: with its traceback, once, and in a counter.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, TypeVar

from knative_sponge.core.backoff import Backoff

_log: Final = logging.getLogger(__name__)

WAITS_S: Final = (1.0, 300.0)
"""First and longest time for which an object is left alone."""
_MOST_CASES: Final = 4096
"""Objects of one loop that are remembered. Whoever makes more has the oldest reported anew."""
_LONGEST_TEXT: Final = 200
_FRAMES: Final = 12

T = TypeVar("T")


def _uncounted(_loop: str) -> None:
    return None


class Failures:
    """All loops of one process. count: told the loop with each failure. clock: monotonic seconds."""

    def __init__(self, count: Callable[[str], None] = _uncounted, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = count
        self.clock = clock
        self.loops: dict[str, Quarantine] = {}

    def of(self, loop: str, longest_s: float = WAITS_S[1]) -> Quarantine:
        """The quarantine of the loop with this name; there is one. longest_s: an object is left alone for so long at most."""
        if loop not in self.loops:
            self.loops[loop] = Quarantine(loop, self, longest_s)
        return self.loops[loop]


class _Case:
    __slots__ = ("backoff", "kinds")

    def __init__(self, longest_s: float) -> None:
        self.backoff = Backoff(WAITS_S[0], max(longest_s, WAITS_S[0]))
        self.kinds: set[str] = set()


class Quarantine:
    """The objects that one loop cannot handle now. Made by `Failures.of`."""

    def __init__(self, loop: str, failures: Failures, longest_s: float) -> None:
        self.loop = loop
        self._longest_s = longest_s
        self._failures = failures
        self._cases: dict[Hashable, _Case] = {}
        self._traced: set[str] = set()

    def holds(self, key: Hashable) -> bool:
        """Is the object left alone now?"""
        case = self._cases.get(key)
        return case is not None and self._failures.clock() < case.backoff.until_s

    def left_s(self, key: Hashable) -> float:
        """Seconds for which the object is still left alone; 0 or less once it is not."""
        case = self._cases.get(key)
        return 0.0 if case is None else case.backoff.until_s - self._failures.clock()

    def run(self, key: Hashable, step: Callable[[], T]) -> T | None:
        """The step for one object. None where it fails, and while the object is left alone: then it is not called."""
        if self._cases and self.holds(key):
            return None
        try:
            result = step()
        except Exception as error:
            self.failed(key, error)
            return None
        self.succeeded(key)
        return result

    async def wait_for(self, key: Hashable, step: Callable[[], Awaitable[T]]) -> T | None:
        """`run` for a step that waits."""
        if self._cases and self.holds(key):
            return None
        try:
            result = await step()
        except Exception as error:
            self.failed(key, error)
            return None
        self.succeeded(key)
        return result

    def succeeded(self, key: Hashable) -> None:
        """The step for the object has not failed."""
        if self._cases and (case := self._cases.get(key)) is not None:
            case.backoff.succeeded()

    def leave_alone(self, key: Hashable) -> None:
        """The step for the object has failed as steps do, which is no news. It is left alone for longer each time."""
        self._back_off(key)

    def failed(self, key: Hashable, error: Exception) -> None:
        """The step for the object has failed. It is left alone for longer each time; people are told once of each kind."""
        self._failures.count(self.loop)
        case = self._back_off(key)
        frames = traceback.extract_tb(error.__traceback__)
        kind = (
            f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
        )
        if kind in case.kinds:
            return
        case.kinds.add(kind)
        trace = ""
        if kind not in self._traced:
            self._traced.add(kind)
            trace = "\n" + "".join(traceback.format_list(frames[-_FRAMES:])).rstrip()
        _log.error(
            "%s: %s cannot be handled: %s: %s%s", self.loop, named(key), type(error).__name__, text(error), trace
        )

    def _back_off(self, key: Hashable) -> _Case:
        case = self._cases.get(key)
        if case is None:
            if len(self._cases) >= _MOST_CASES:
                del self._cases[next(iter(self._cases))]
            case = self._cases[key] = _Case(self._longest_s)
        case.backoff.failed(self._failures.clock())
        return case


def named(key: Hashable) -> str:
    """An object's key for people."""
    parts = [part for part in key if part] if isinstance(key, tuple) else [key]
    return "/".join(str(part)[:_LONGEST_TEXT] for part in parts) or "a round"


def text(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters. It may quote what a stranger wrote."""
    try:
        said = str(error)
    except Exception:
        return "it cannot be said what"
    return " ".join(said[: 2 * _LONGEST_TEXT].split())[:_LONGEST_TEXT]
