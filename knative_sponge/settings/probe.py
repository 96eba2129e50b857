"""What a readiness probe checks, parsed from the JSON of a Kubernetes Probe; nothing is probed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ALLOWED = "the JSON of a Kubernetes Probe with httpGet, tcpSocket or grpc, or an array of them"


@dataclass(frozen=True, slots=True)
class Probe:
    """One readiness check of the model server (docs/knative-contract.md §1.4).

    path: a GET of it must answer 200–399 (httpGet).
    period_s: 0 tries again until it passes; otherwise one attempt, repeated by whoever asks.
    timeout_s: bound of one attempt when period_s is not 0.
    success_threshold: passes in a row that are needed when period_s is 0.
    service: a name, possibly empty, that gRPC's health service must call SERVING (grpc). Without path and service the
        probe connects and closes (tcpSocket).
    """

    host: str
    port: int
    path: str | None = None
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    period_s: float = 0.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    service: str | None = None


def parse_probes(text: str, default_host: str, default_port: int) -> tuple[Probe, ...]:
    """The probes in `SERVING_READINESS_PROBE`; an empty text or a `null` entry is no probe.

    Raises ValueError, whose text says what is allowed.
    """
    if not text.strip():
        return ()
    try:
        found = json.loads(text)
        entries = found if isinstance(found, list) else [found]
        return tuple(_probe(entry, default_host, default_port) for entry in entries if entry is not None)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(_ALLOWED) from error


def _probe(entry: Mapping[str, Any], default_host: str, default_port: int) -> Probe:
    path = service = None
    if (action := entry.get("httpGet")) is not None:
        path = "/" + (action.get("path") or "/").removeprefix("/")
    elif (action := entry.get("grpc")) is not None:
        service = str(action.get("service") or "")
    else:
        action = entry["tcpSocket"]
    period_s = float(entry.get("periodSeconds") or 0)
    port = int(action.get("port") or default_port)
    if not 0 < port < 65536 or period_s < 0:
        raise ValueError
    return Probe(
        # A grpc probe names no host: it always asks the pod itself.
        host=(service is None and action.get("host")) or default_host,
        port=port,
        path=path,
        tls=(action.get("scheme") or "HTTP").upper() == "HTTPS",
        headers=tuple((header["name"], header.get("value", "")) for header in action.get("httpHeaders") or ()),
        period_s=period_s,
        timeout_s=max(1.0, float(entry.get("timeoutSeconds") or 1)),
        success_threshold=max(1, int(entry.get("successThreshold") or 1)),
        service=service,
    )
