"""What `OBSERVABILITY_CONFIG` asks of one proxy (docs/knative-contract.md §1.12); unknown keys and others' are ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

NONE: Final = "none"
PROMETHEUS: Final = "prometheus"


@dataclass(frozen=True, slots=True)
class Observability:
    """What operators want to see of one proxy."""

    request_metrics: str = NONE
    """Protocol of the metrics about users' requests; only `prometheus` and `none` are offered."""
    metrics_port: int | None = None
    """Port of these metrics; None is the usual one."""
    request_log: str | None = None
    """Template of one line per request on stdout; None logs nothing."""
    log_probes: bool = False
    """Probes are logged too."""
    tracing: str = NONE
    """Protocol of traces; none is offered, trace headers pass through."""


def parse_observability(text: str) -> Observability:
    """The JSON of `OBSERVABILITY_CONFIG`. Raises ValueError when it is none, or holds something of the wrong kind."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError from None
    if not isinstance(found, dict):
        raise ValueError
    metrics = _part(found, "requestMetrics")
    protocol = _text(metrics, "protocol") or NONE
    port = None
    if protocol == PROMETHEUS and (endpoint := _text(metrics, "endpoint")):
        port = int(endpoint.rpartition(":")[2])
        if not 0 < port < 65536:
            raise ValueError
    template = _text(found, "requestLogTemplate") if _flag(found, "enableRequestLog") else ""
    return Observability(
        request_metrics=protocol,
        metrics_port=port,
        request_log=template or None,
        log_probes=_flag(found, "enableProbeRequestLog"),
        tracing=_text(_part(found, "tracing"), "protocol") or NONE,
    )


def _part(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = found.get(name) or {}
    if not isinstance(part, dict):
        raise ValueError
    return part


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name) or ""
    if not isinstance(value, str):
        raise ValueError
    return value


def _flag(found: Mapping[str, Any], name: str) -> bool:
    value = found.get(name) or False
    if not isinstance(value, bool):
        raise ValueError
    return value
