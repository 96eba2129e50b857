"""The machine that figures were measured on, in words; no host name, no path, nothing that names its owner."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine(proc: Path = Path("/proc")) -> dict[str, str | int | float]:
    """CPU model, cores that this process may use, memory in GiB, kernel and Python."""
    return {
        "cpu": _field(proc / "cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_field(proc / "meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def machine_line(machine: dict[str, str | int | float]) -> str:
    """The same as one line for people."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['kernel']}, "
        f"Python {machine['python']}"
    )


def _field(file: Path, name: str) -> str | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next(
        (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), None
    )
