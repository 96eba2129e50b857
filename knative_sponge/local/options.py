"""What `sponge run` and LocalService can be told; starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.cfs_quota import DEFAULT_PERIOD_S, KERNEL_MIN_US, check_period
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.demand_follower import Resized
from knative_sponge.local.process import Sink
from knative_sponge.settings import ServingSettings

MIN_CORES = KERNEL_MIN_US * 1e-6


def _to_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How to run one model server behind one proxy on this machine."""

    command: tuple[str, ...]
    """The model server. `{port}` in any word is replaced by its port, which is also in its environment as PORT."""
    settings: ServingSettings = field(default_factory=ServingSettings)
    """As in annotations. Without `slo_s` the proxy plans nothing, and the size stays at the most allowed."""
    host: str = "127.0.0.1"
    """Where the proxy listens."""
    port: int = 0
    """Public port of the proxy; 0 takes a free one."""
    server_port: int = 0
    """Port of the model server; 0 takes a free one."""
    fixed_cores: float | None = None
    """Hold the model server to exactly this size and follow no demand."""
    cfs_period_s: float = DEFAULT_PERIOD_S
    """Seconds over which a CFS quota counts. A shorter period makes shorter stalls (local/cpu/cfs_quota.py)."""
    profile: Path | None = None
    """Latency profile (JSON) to start warm from."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the proxy's environment; it overrides everything else."""
    start_timeout_s: float = 60.0
    """Time in which the model server, and then the proxy, must accept connections."""
    grace_s: float = 10.0
    """Time between SIGTERM and SIGKILL, for each of the two programs."""
    control: CpuControl | None = None
    """Sets the cores; None takes the best one that this process may use. The service closes it at the end."""
    proxy_command: tuple[str, ...] = (sys.executable, "-m", "knative_sponge.proxy")
    output: Sink = _to_stderr
    """Takes the output of both programs."""
    say: Callable[[str], None] = _ignore
    """Takes lines for people: how the cores are set, what went wrong."""
    resized: Callable[[Resized], None] = _ignore
    """Called after each change of size."""

    def __post_init__(self) -> None:
        if not self.command:
            raise SettingError("command", "", "the model server's command after --")
        for name, port in (("port", self.port), ("server-port", self.server_port)):
            if not 0 <= port <= 65535:
                raise SettingError(name, port, "a TCP port, or 0 for a free one")
        if self.fixed_cores is not None and not self.fixed_cores >= MIN_CORES:
            raise SettingError("fixed-cores", self.fixed_cores, f"at least {MIN_CORES}")
        check_period(self.cfs_period_s)
        for name, seconds in (("start-timeout", self.start_timeout_s), ("grace", self.grace_s)):
            if not seconds > 0:
                raise SettingError(name, seconds, "a duration above zero")
        if self.profile is not None and not self.profile.is_file():
            raise SettingError("profile", str(self.profile), "a file")
