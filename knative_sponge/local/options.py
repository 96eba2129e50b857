"""What `sponge run` and LocalService can be told; starts nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from knative_sponge.core.quantity import format_duration
from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.cfs_quota import DEFAULT_PERIOD_S, KERNEL_MIN_US, check_period
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.demand_follower import Resized
from knative_sponge.local.process import Sink
from knative_sponge.local.profile_file import check_profile, check_writable
from knative_sponge.settings import ServingSettings

MIN_CORES = KERNEL_MIN_US * 1e-6
NO_READY_PATH: Final = "none"
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PATH: Final = re.compile(r"/[!-~]*")


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
    """Port of the model server; 0 takes a free one, or the one that the server opens although it was told another."""
    admin_port: int = 0
    """Port of the proxy's state and control; 0 takes a free one."""
    metrics_port: int = 0
    """Port of the proxy's metrics; 0 takes a free one."""
    name: str = ""
    """Of the service, in the `source` of its events and in its logs; empty is this machine's name with the public port."""
    ready_path: str | None = None
    """GET of it answers 200 to 399 once the model server is ready. `NO_READY_PATH`: it is ready when it accepts connections.
    None takes the first of `servers.READY_PATHS` that the server has."""
    fixed_cores: float | None = None
    """Hold the model server to exactly this size and follow no demand."""
    cfs_period_s: float = DEFAULT_PERIOD_S
    """Seconds over which a CFS quota counts. A shorter period makes shorter stalls (local/cpu/cfs_quota.py)."""
    profile: Path | None = None
    """Latency profile (JSON) to start warm from."""
    save_profile: Path | None = None
    """File that gets what the latency model has learned, at the end and every minute."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the proxy's environment; it overrides everything else."""
    start_timeout_s: float = 60.0
    """Time in which the model server, and then the proxy, must accept connections."""
    ready_timeout_s: float = 600.0
    """Time in which the model server must be ready once it accepts connections; as the progress deadline of a revision."""
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
        for name, port in (
            ("port", self.port),
            ("server-port", self.server_port),
            ("admin-port", self.admin_port),
            ("metrics-port", self.metrics_port),
        ):
            if not 0 <= port <= 65535:
                raise SettingError(name, port, "a TCP port, or 0 for a free one")
        if self.name and not _NAME.fullmatch(self.name):
            raise SettingError("name", self.name, "letters, digits and dashes, at most 63, such as ocr")
        if self.ready_path not in (None, NO_READY_PATH) and not _PATH.fullmatch(str(self.ready_path)):
            raise SettingError("ready-path", self.ready_path, f"an absolute path, such as /healthz, or {NO_READY_PATH}")
        if self.fixed_cores is not None and not self.fixed_cores >= MIN_CORES:
            raise SettingError("fixed-cores", self.fixed_cores, f"at least {MIN_CORES}")
        check_period(self.cfs_period_s)
        for name, seconds in (
            ("start-timeout", self.start_timeout_s),
            ("ready-timeout", self.ready_timeout_s),
            ("grace", self.grace_s),
        ):
            if not seconds > 0:
                raise SettingError(name, format_duration(seconds), "a duration above zero")
        if self.profile is not None:
            check_profile(self.profile)
        if self.save_profile is not None:
            if self.settings.slo_s is None:
                raise SettingError(
                    "save-profile", str(self.save_profile), "slo to be set: without it nothing is learned"
                )
            check_writable(self.save_profile)
