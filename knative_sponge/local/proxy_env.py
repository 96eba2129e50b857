"""The environment in which the proxy starts on this machine. In a cluster Knative's reconciler and our webhook set it."""

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
    """All variables that Knative sets for a queue-proxy (pkg/reconciler/revision/resources/queue.go), and our own.

    `SPONGE_*` variables of this process are not passed on: only `settings` and `options.env` decide.
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
        "SPONGE_CFS_PERIOD": format_duration(control.period_s),
        "SPONGE_CONTROL_TOKEN": token,
        # Clients ask this very address, so a drain need not wait until routes forget the pod.
        "SPONGE_DRAIN_QUIET": "0",
        "SPONGE_HOST": options.host,
        "SPONGE_ADMIN_PORT": str(ports.admin),
        "SPONGE_STAT_PORT": str(ports.stat),
        "SPONGE_METRICS_PORT": str(ports.metrics),
    }
    if options.profile is not None:
        env["SPONGE_PROFILE"] = str(options.profile.resolve())
    return env | settings.to_env() | dict(options.env)
