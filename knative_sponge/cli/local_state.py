"""Reads the state of a proxy outside a cluster, and presents it as a revision of one pod; decides nothing."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final

from knative_sponge.controller.reporting.rows import PodRow, RevisionRow
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.profile import from_json
from knative_sponge.core.quantity import parse_duration_s, parse_quantity
from knative_sponge.errors import ProfileError, SettingError

_WAIT_S: Final = 5.0
_LARGEST: Final = 2**20


def read_state(url: str) -> RevisionRow:
    """The answer of `GET /sponge/v1/state` at this address. Raises SettingError when it cannot be fetched or read."""
    allowed = "the address of a proxy's /sponge/v1/state"
    if not url.startswith(("http://", "https://")):
        raise SettingError("--state", url, allowed)
    try:
        with urllib.request.urlopen(url, timeout=_WAIT_S) as answer:
            return revision(json.loads(answer.read(_LARGEST)))
    except (OSError, ValueError, KeyError, TypeError, ProfileError) as error:
        raise SettingError("--state", url, f"{allowed} ({error})") from error


def revision(state: dict[str, Any]) -> RevisionRow:
    """The state document as a revision of one pod, without a curve and without a count of misses.

    Raises KeyError, ValueError, TypeError and ProfileError.
    """
    settings, cores, queue = state["settings"], state["cores"], state["queue"]
    model = from_json(state["model"])
    pod = PodRow(
        name="this server",
        node="",
        cores=cores["now"],
        target=cores["coming"] or cores["now"],
        want=cores["want"],
        phase="steady" if cores["coming"] is None else "patched",
        rate=state["rate"],
        queued=queue["rows"],
        running=len(state["running"]),
        news_s=0.0,
        params=_four(model.params),
        cost=_four(model.costs.params),
        samples=state["model"]["samples"],
    )
    return RevisionRow(
        namespace="local",
        name="server",
        service="",
        slo_s=parse_duration_s(settings["slo"]) if "slo" in settings else None,
        priority=int(settings["priority"]),
        scaling=settings["scaling"],
        max_batch=int(settings["max-batch"]),
        max_inflight=int(settings["max-inflight"]),
        min_cores=parse_quantity(settings["min-cores"]),
        max_cores=cores["max"],
        wanted_pods=1,
        pods=(pod,),
    )


def _four(params: LatencyParams) -> tuple[float, float, float, float]:
    return params.gamma, params.delta, params.epsilon, params.eta
