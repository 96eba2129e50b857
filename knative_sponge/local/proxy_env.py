"""The environment the proxy starts with on this machine, in place of Knative's revision reconciler and webhook."""

from __future__ import annotations

import json
import os
from typing import Final

from knative_sponge.core.quantity import format_cores, format_duration
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.ports import Ports
from knative_sponge.settings import ServingSettings
from knative_sponge.settings.serving import ENV_PREFIX

LOOPBACK: Final = "127.0.0.1"


def proxy_env(
    options: LocalOptions, settings: ServingSettings, ports: Ports, control: CpuControl, cores: float, token: str
) -> dict[str, str]:
    """All that Knative sets for a queue-proxy (pkg/reconciler/revision/resources/queue.go), and our own variables.

    `SPONGE_*` variables of this process are not passed on: `settings` and `options.env` say everything.
    """
    probe = {"tcpSocket": {"port": ports.server, "host": LOOPBACK}, "successThreshold": 1}
    env = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    env |= {
        "SERVING_NAMESPACE": "local",
        "SERVING_SERVICE": "local",
        "SERVING_CONFIGURATION": "local",
        "SERVING_REVISION": "local-00001",
        "SERVING_POD": f"local-00001-{os.getpid()}",
        "SERVING_POD_IP": LOOPBACK,
        "QUEUE_SERVING_PORT": str(ports.public),
        "QUEUE_SERVING_TLS_PORT": str(ports.tls),
        "USER_PORT": str(ports.server),
        "CONTAINER_CONCURRENCY": "0",
        "REVISION_TIMEOUT_SECONDS": "300",
        "SERVING_READINESS_PROBE": json.dumps(probe),
        "SERVING_LOGGING_CONFIG": "",
        "SERVING_LOGGING_LEVEL": "",
        "SPONGE_CORES": format_cores(cores),
        # The proxy wants a period above zero: a microsecond says that nobody waits for one.
        "SPONGE_CFS_PERIOD": format_duration(control.period_s),
        "SPONGE_CONTROL_TOKEN": token,
        # No route has to forget us: clients ask this very address.
        "SPONGE_DRAIN_QUIET": "0",
        "SPONGE_HOST": options.host,
        "SPONGE_ADMIN_PORT": str(ports.admin),
        "SPONGE_STAT_PORT": str(ports.stat),
        "SPONGE_METRICS_PORT": str(ports.metrics),
    }
    if options.profile is not None:
        env["SPONGE_PROFILE"] = str(options.profile.resolve())
    return env | settings.to_env() | dict(options.env)
