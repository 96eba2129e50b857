"""Reads the state of a proxy outside a cluster, and presents it as a revision of one pod; decides nothing."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Final

from knative_sponge.controller.reporting.rows import PodRow, RevisionRow
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.profile import from_json
from knative_sponge.core.quantity import parse_duration_s, parse_quantity
from knative_sponge.errors import ProfileError, SettingError, WireError
from knative_sponge.wire.http import STATE_PATH
from knative_sponge.wire.state import ProxyState, decode_state

_WAIT_S: Final = 5.0
_LARGEST: Final = 2**20


def read_state(url: str) -> RevisionRow:
    """The answer of `GET /sponge/v1/state` at this address. Raises SettingError when it cannot be fetched or read."""
    allowed = f"the address of a proxy's {STATE_PATH}"
    if not url.startswith(("http://", "https://")):
        raise SettingError("--state", url, allowed)
    try:
        with urllib.request.urlopen(url, timeout=_WAIT_S) as answer:
            return revision(decode_state(answer.read(_LARGEST)))
    except (OSError, ValueError, KeyError, WireError, ProfileError) as error:
        raise SettingError("--state", url, f"{allowed} ({error})") from error


def revision(state: ProxyState) -> RevisionRow:
    """The state as a revision of one pod, without a curve and without a count of misses.

    Raises KeyError and ValueError for settings that are missing or not readable, ProfileError for a model.
    """
    settings, cores = state.settings, state.cores
    model = from_json(state.model)
    pod = PodRow(
        name="this server",
        node="",
        cores=cores.now,
        target=cores.coming or cores.now,
        want=cores.want,
        phase="steady" if cores.coming is None else "patched",
        rate=state.rate,
        queued=state.queue.rows,
        running=len(state.running),
        news_s=0.0,
        params=_four(model.params),
        cost=_four(model.costs.params),
        samples=model.learner.samples,
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
        max_cores=cores.max,
        wanted_pods=1,
        pods=(pod,),
    )


def _four(params: LatencyParams) -> tuple[float, float, float, float]:
    return params.gamma, params.delta, params.epsilon, params.eta
