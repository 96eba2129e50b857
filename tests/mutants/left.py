"""The mutants that are left alive on purpose: left.toml, which names each by its line's text, so that lines may move."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutation import Mutation
from tests.mutants.rooms import PRODUCT

LEFT = Path(__file__).with_name("left.toml")


@dataclass(frozen=True, slots=True)
class Left:
    """In `file`, `line` may become `mutant`: `reason` says why no test should mind."""

    file: str
    line: str
    mutant: str
    reason: str

    def names(self, mutation: Mutation) -> bool:
        """Whether this is the mutation meant."""
        return (f"{PRODUCT}/{self.file}", self.line, self.mutant) == (mutation.file, mutation.text, mutation.mutant)


def read(path: Path = LEFT) -> list[Left]:
    """All entries. Raises TypeError for one that lacks a key or has another."""
    return [Left(**entry) for entry in tomllib.loads(path.read_text()).get("left", [])]
