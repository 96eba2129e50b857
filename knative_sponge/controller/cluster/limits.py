"""What an administrator lets each namespace ask for: ConfigMap `knative-sponge-limits` in the controller's namespace. Pure.

    data:
      default: |
        priority: 5
        max-cores: 8
      team-a: |
        priority: 9
        head-room: 500m

A key is a namespace, or `default` for all others. Each line bounds what revisions of the namespace may say, and what they are
given: `priority`, `min-cores` and `max-cores` count no further than this, from a pod's start on, and no pod gets more than
`head-room` cores ahead of need. A namespace has of `default` what its own entry leaves out. Without an entry there is no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from knative_sponge.controller.kube.resource import LIMITS
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.settings.serving import ServingSettings

DEFAULT: Final = "default"
_LONGEST: Final = 4096
"""Characters of one entry. Four lines need a hundred."""
_SHOWN: Final = 60


CONFIG: Final = LIMITS.names[0]
"""Name of the ConfigMap."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A setting that counts otherwise than its revision says. name: of the annotation. said: empty where it says nothing."""

    name: str
    said: str
    counts: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one namespace. None is no bound, or that of `default`. Cores in cores."""

    priority: int | None = None
    min_cores: float | None = None
    max_cores: float | None = None
    head_room: float | None = None

    def over(self, default: Limits) -> Limits:
        """These bounds, and those of `default` where these name none."""
        return Limits(
            *(ours if ours is not None else theirs for ours, theirs in zip(_all(self), _all(default), strict=True))
        )

    def bounded(self, settings: ServingSettings) -> ServingSettings:
        """The settings as far as they count."""
        most = min((x for x in (settings.max_cores, self.max_cores) if x is not None), default=None)
        least = min(x for x in (settings.min_cores, self.min_cores, most) if x is not None)
        priority = settings.priority if self.priority is None else min(settings.priority, self.priority)
        if (priority, least, most) == (settings.priority, settings.min_cores, settings.max_cores):
            return settings
        return replace(settings, priority=priority, min_cores=least, max_cores=most)

    def bounds_on(self, settings: ServingSettings) -> list[Bound]:
        """What of the settings counts otherwise."""
        said, counts = settings.effective(), self.bounded(settings).effective()
        return [Bound(name, said.get(name, ""), text) for name, text in counts.items() if said.get(name) != text]


NO_LIMITS: Final = Limits()


def parse_limits(text: str) -> Limits:
    """From the text of one entry. Raises ValueError that names the line and what is allowed."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ValueError(f"an entry is a text of at most {_LONGEST} characters")
    found: dict[str, Any] = {}
    for each in text.splitlines():
        line = each.partition("#")[0].strip()
        if not line:
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip().strip("\"'")
        if not colon or name not in _READERS:
            raise ValueError(f"{line[:_SHOWN]!r}: expected `name: value` with one of {', '.join(_READERS)}")
        if name in found:
            raise ValueError(f"{name} is there twice")
        read, allowed = _READERS[name]
        try:
            found[name] = read(value)
        except ValueError as error:
            raise ValueError(f"{name}: expected {allowed}, not {value[:_SHOWN]!r}") from error
    return Limits(**{name.replace("-", "_"): value for name, value in found.items()})


class LimitTable:
    """The entries as last read. An entry that cannot be read leaves the last good one in force."""

    def __init__(self) -> None:
        self._entries: dict[str, Limits] = {}
        self.faults: dict[str, str] = {}
        """What is wrong with the entries that cannot be read, by key."""

    def of(self, namespace: str) -> Limits:
        """The bounds of a namespace."""
        default = self._entries.get(DEFAULT, NO_LIMITS)
        own = self._entries.get(namespace)
        return default if own is None or namespace == DEFAULT else own.over(default)

    def take(self, data: Mapping[str, str]) -> bool:
        """Take over the ConfigMap's data; empty where there is no ConfigMap. Has a bound changed?"""
        before, entries, faults = self._entries, {}, {}
        for key, text in data.items():
            try:
                entries[key] = parse_limits(text)
            except ValueError as error:
                faults[key] = str(error)
                if key in before:
                    entries[key] = before[key]
        self._entries, self.faults = entries, faults
        return entries != before


def _all(limits: Limits) -> list[Any]:
    return [getattr(limits, one.name) for one in fields(limits)]


def _priority(text: str) -> int:
    if len(text) != 1 or not "0" <= text <= "9":
        raise ValueError
    return int(text)


def _cores(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        cores = parse_quantity(text[:_SHOWN])
        if not least <= cores <= 4096 or not math.isfinite(cores) or len(text) > _SHOWN:
            raise ValueError
        return cores

    return read


_READERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "priority": (_priority, "a whole number from 0 to 9"),
    "min-cores": (_cores(0.01), "a CPU quantity from 10m to 4096"),
    "max-cores": (_cores(0.01), "a CPU quantity from 10m to 4096"),
    "head-room": (_cores(0.0), "a CPU quantity from 0 to 4096"),
}
