"""A container's CPU quota as the kernel of this machine has it: the truth that the cluster's status only reports later."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e.harness.kube import Kube, Object
from e2e.harness.services import Service

_ROOT: Final = Path("/sys/fs/cgroup")
_EVERY_S: Final = 0.004


def container_id(pod: Object, name: str) -> str:
    """The id of a pod's container, without the runtime's name."""
    status = next(one for one in pod["status"]["containerStatuses"] if one["name"] == name)
    return str(status["containerID"]).rpartition("/")[2]


def cgroup_of(container: str) -> Path:
    """The directory with the CPU quota of a container of this machine. Raises FileNotFoundError."""
    top = _ROOT if (_ROOT / "cgroup.controllers").exists() else _ROOT / "cpu"
    for directory, names, _ in os.walk(top):
        for name in names:
            if name in (container, f"cri-containerd-{container}.scope"):
                return Path(directory) / name
    raise FileNotFoundError(f"no control group of container {container} below {top}")


def quota_cores(group: Path) -> float | None:
    """Cores that the group may use; None without a limit."""
    if (one := group / "cpu.max").exists():
        quota, period = one.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us = int((group / "cpu.cfs_quota_us").read_text())
    return None if quota_us < 0 else quota_us / int((group / "cpu.cfs_period_us").read_text())


def memory_used(group: Path) -> int:
    """Bytes that the container whose CPU group this is uses, without file pages that could be dropped."""
    if (group / "memory.current").exists():
        used, where, name = int((group / "memory.current").read_text()), group, "inactive_file"
    else:
        where = Path(str(group).replace("/cpu/", "/memory/", 1))
        used, name = int((where / "memory.usage_in_bytes").read_text()), "total_inactive_file"
    stat = dict(line.split() for line in (where / "memory.stat").read_text().splitlines())
    return used - int(stat[name])


@dataclass(slots=True)
class QuotaLog:
    """Every size that was seen, with the monotonic time from which it was; oldest first."""

    steps: list[tuple[float, float]] = field(default_factory=list)
    ended_s: float = 0.0

    @property
    def cores(self) -> float:
        """The latest."""
        return self.steps[-1][1]

    @property
    def most(self) -> float:
        """The largest."""
        return max(cores for _, cores in self.steps)

    def core_seconds(self, since_s: float = 0.0, until_s: float | None = None) -> float:
        """Cores times seconds in a span of time."""
        end_s = self.ended_s or time.monotonic()
        if until_s is not None:
            end_s = min(end_s, until_s)
        total = 0.0
        for number, (start_s, cores) in enumerate(self.steps):
            next_s = self.steps[number + 1][0] if number + 1 < len(self.steps) else end_s
            total += cores * max(0.0, min(next_s, end_s) - max(start_s, since_s))
        return total


@contextmanager
def quota_log(group: Path) -> Iterator[QuotaLog]:
    """While the block runs, a thread writes down each change of a group's quota within a few milliseconds."""
    log = QuotaLog([(time.monotonic(), quota_cores(group) or 0.0)])
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(_EVERY_S):
            try:
                cores = quota_cores(group) or 0.0
            except OSError:
                log.ended_s = time.monotonic()
                return  # the container has ended
            if cores != log.cores:
                log.steps.append((time.monotonic(), cores))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield log
    finally:
        stop.set()
        thread.join()
        log.ended_s = log.ended_s or time.monotonic()


class ServiceQuota:
    """The quotas of all pods that a Service has while `followed` runs. container: which of each pod."""

    def __init__(self, kube: Kube, service: Service, container: str) -> None:
        self._kube = kube
        self._service = service
        self._container = container
        self._logs: dict[str, QuotaLog] = {}

    def core_seconds(self, since_s: float = 0.0, until_s: float | None = None) -> float:
        """Of all pods together, each for as long as it was seen."""
        return sum(log.core_seconds(since_s, until_s) for log in self._logs.values())

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Look for new pods twice a second."""
        stop = threading.Event()
        with ExitStack() as stack:

            def look() -> None:
                while not stop.wait(0.5):
                    for pod in self._kube.pods(self._service.name, self._service.namespace):
                        uid = pod["metadata"]["uid"]
                        if uid not in self._logs and pod["status"].get("phase") == "Running":
                            group = cgroup_of(container_id(pod, self._container))
                            self._logs[uid] = stack.enter_context(quota_log(group))

            thread = threading.Thread(target=look)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
