"""Finds this process's place in the cgroup hierarchy that holds a controller; only reads, makes no group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Place:
    """One mounted hierarchy, seen from this process.

    version: 1 or 2. root: the mount point. own: directory of this process's group, at or below `root`.
    """

    version: int
    root: Path
    own: Path


def find_place(controller: str, proc: Path = Path("/proc/self")) -> Place | None:
    """This process's place for `controller`: in the controller's v1 hierarchy if it has one, else in the v2 hierarchy.

    None when the hierarchy is not mounted. A machine may mount both versions (hybrid); /proc/self/cgroup then says to which
    one a controller is bound. Only the `cgroup.controllers` of the v2 hierarchy says whether it has the controller at all.
    """
    version, path = _own_group(controller, proc)
    if path is None or ".." in path.parts:  # outside our cgroup namespace
        return None
    for line in (proc / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind != ("cgroup" if version == 1 else "cgroup2"):
            continue
        if version == 1 and controller not in options.split(","):
            continue
        fields = before.split(" ")
        mounted, point = PurePosixPath(_unescape(fields[3])), Path(_unescape(fields[4]))
        if path.is_relative_to(mounted):
            return Place(version, point, point / path.relative_to(mounted))
    return None


def _own_group(controller: str, proc: Path) -> tuple[int, PurePosixPath | None]:
    unified = None
    for line in (proc / "cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return 1, PurePosixPath(path)
        if number == "0" and not controllers:
            unified = PurePosixPath(path)
    return 2, unified


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)
