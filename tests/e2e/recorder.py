"""A Runner that runs nothing: it writes down what it was asked and answers as it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.provider import ClusterError


@dataclass(frozen=True, slots=True)
class Call:
    """One command as it was asked for."""

    words: tuple[str, ...]
    timeout_s: float
    env: Mapping[str, str]
    cwd: Path | None


@dataclass(slots=True)
class Recorder:
    """See above. `answer` gets the words and returns the output, or raises ClusterError."""

    answer: Callable[[tuple[str, ...]], str] = lambda _: ""
    calls: list[Call] = field(default_factory=list)

    def __call__(
        self,
        args: Sequence[str | Path],
        *,
        timeout_s: float = 60.0,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        words = tuple(str(arg) for arg in args)
        self.calls.append(Call(words, timeout_s, env or {}, cwd))
        return self.answer(words)

    def words(self) -> list[tuple[str, ...]]:
        """All commands so far; forgotten afterwards."""
        said = [call.words for call in self.calls]
        self.calls.clear()
        return said


def failing(part: str, message: str = "refused") -> Callable[[tuple[str, ...]], str]:
    """An answer that fails every command that has a word `part`."""

    def answer(words: tuple[str, ...]) -> str:
        if part in words:
            raise ClusterError(message)
        return ""

    return answer
