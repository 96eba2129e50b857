"""A verb's arguments as its flags and the command after `--`, its faults told in our words; it knows no flag's meaning."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from knative_sponge.errors import SettingError

COMMAND: Final = "COMMAND"
_HELP: Final = ("-h", "--help")
_END: Final = "--"
_MOST_SHOWN: Final = 200
"""Characters of what was typed that a message repeats."""


@dataclass(frozen=True, slots=True)
class Words:
    """flags: each in one word, `--name=value`, for argparse, which takes a value of its own that begins with a dash for a flag.
    command: what stands after `--`; empty when nothing does."""

    flags: tuple[str, ...]
    command: tuple[str, ...]


def split(argv: Sequence[str], allowed: Mapping[str, str], usage: str) -> Words:
    """Take the arguments of a verb apart whose flags all have one value, but for `--help`.

    allowed: of each flag, such as `--slo`, what its value may be. usage: how the verb is called, up to its `--`.
    Raises SettingError that names the flag or the command.
    """
    flags: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == _END:
            return Words(tuple(flags), tuple(rest))
        if word in _HELP:
            flags.append(word)
        elif not word.startswith("-"):
            raise _without_dashes([word, *rest], flags, usage)
        else:
            flags.append(_flag(word, rest, allowed))
    return Words(tuple(flags), ())


def _flag(word: str, rest: list[str], allowed: Mapping[str, str]) -> str:
    name, equals, _ = word.partition("=")
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed, 1, cutoff=0.5)
        expected = near[0] if near else "one of those that --help lists"
        raise SettingError("flag", _short(name), expected)
    if equals:
        return word
    if not rest or rest[0] == _END or rest[0].partition("=")[0] in allowed:
        raise SettingError(name, "", allowed[name])
    return f"{name}={rest.pop(0)}"


def _without_dashes(command: list[str], flags: list[str], usage: str) -> SettingError:
    """A command that follows no `--`."""
    typed = _short(shlex.join(command))
    call = " ".join([usage, *map(shlex.quote, flags), _END, typed])
    return SettingError(COMMAND, typed, f"the model server's command after --: {_short(call)}")


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"
