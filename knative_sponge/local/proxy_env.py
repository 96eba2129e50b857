"""The environment in which the proxy starts on this machine. In a cluster Knative's reconciler and our webhook set it."""

from __future__ import annotations

import json
import os
import re
import socket
from typing import Final

from knative_sponge.core.quantity import format_cores, format_duration
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.ports import LOOPBACK, Ports
from knative_sponge.settings import ServingSettings
from knative_sponge.settings.serving import ENV_PREFIX

_MOST_NAME: Final = 50
"""Characters of a machine's name that are kept: with the port, the name is a label of at most 63."""


def service_name(options: LocalOptions, ports: Ports) -> str:
    """What the service is called. Any two services, on one machine or on two, have different names unless their user wills it.

    The name is in the `source` of events that the proxy sends. It refuses events of its own source: they would run in circles.
    """
    machine = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:_MOST_NAME]
    return options.name or f"{machine or 'local'}-{ports.public}"


def proxy_env(
    options: LocalOptions,
    settings: ServingSettings,
    ports: Ports,
    control: CpuControl,
    cores: float,
    token: str,
    ready_path: str | None = None,
) -> dict[str, str]:
    """All variables that Knative sets for a queue-proxy (pkg/reconciler/revision/resources/queue.go), and our own.

    `SPONGE_*` variables of this process are not passed on: only `settings` and `options.env` decide. ready_path: where the
    model server says that it is ready; None when accepting connections says it.
    """
    at = {"port": ports.server, "host": LOOPBACK}
    check = {"tcpSocket": at} if ready_path is None else {"httpGet": {**at, "path": ready_path}}
    probe = {**check, "successThreshold": 1}
    name = service_name(options, ports)
    env = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    env |= {
        "SERVING_NAMESPACE": "local",
        "SERVING_SERVICE": name,
        "SERVING_CONFIGURATION": name,
        "SERVING_REVISION": f"{name}-00001",
        "SERVING_POD": f"{name}-00001-{os.getpid()}",
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
