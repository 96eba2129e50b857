"""What is read off a pod, and the patch that resizes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.cluster.pod import control_reference, resize_body
from knative_sponge.controller.cluster.pod_fields import kept_fields
from knative_sponge.core.quantity import parse_quantity
from knative_sponge.core.resizing.events import Seen
from tests.controller.admission.pod_kit import created
from tests.controller.admission_kit import container, pod_with
from tests.controller.sized_pod import IMAGE, conditioned, resized, running, status_of, viewed

MI = 2**20


def test_a_running_pod_says_who_it_is_and_how_large() -> None:
    seen = viewed(running())
    assert seen.key == ("default", "hello-00002-deployment-6dc68d6444-wt42v")
    assert (seen.uid, seen.revision, seen.service) == ("u-1", "hello-00002", "hello")
    assert (seen.node, seen.ip, seen.token, seen.sponge) == ("n1", "10.0.0.7", "t-1", True)
    assert (seen.container, seen.image) == ("user-container", IMAGE)
    assert (seen.request, seen.limit, seen.in_force, seen.allocated) == (0.1, 0.1, 0.1, 0.1)
    assert (seen.memory_request, seen.memory_limit, seen.memory_in_force) == (64 * MI, 128 * MI, 128 * MI)
    assert (seen.pending, seen.progress, seen.message) == ("", "", "")
    assert (seen.generation, seen.observed_generation) == (3, 3)
    assert (seen.phase, seen.ready, seen.terminating, seen.qos) == ("Running", True, False, "Burstable")
    assert seen.others == 0.025
    assert seen.settings is not None
    assert seen.settings.slo_s == 0.5


def test_a_pod_says_which_token_its_proxy_asks_for() -> None:
    pod = created(pod_with(), token="n-1") | {"status": {}}
    for one in (viewed(pod), viewed(kept_fields(pod))):
        assert (one.token, one.control) == ("", "1.n-1")
    assert control_reference(kept_fields(pod)) == "1.n-1"
    assert control_reference({"metadata": {"name": "of somebody else"}}) == ""


def test_a_pod_that_is_printed_does_not_show_its_token() -> None:
    assert "t-1" not in repr(viewed(running()))


def test_a_pod_that_was_just_made_says_what_it_can() -> None:
    pod = running()
    del pod["status"], pod["spec"]["nodeName"]
    seen = viewed(pod)
    assert (seen.node, seen.ip, seen.phase, seen.ready, seen.qos) == ("", "", "", False, "")
    assert (seen.in_force, seen.allocated, seen.memory_in_force) == (None, None, None)
    assert seen.observed_generation == 0


def test_a_pod_of_somebody_else_is_none_of_ours() -> None:
    pod = {
        "metadata": {"namespace": "kube-system", "name": "dns"},
        "spec": {"containers": [{"name": "dns", "resources": {"requests": {"cpu": "1"}}}]},
    }
    seen = viewed(pod)
    assert (seen.sponge, seen.container, seen.token, seen.revision) == (False, "", "", "")
    assert (seen.request, seen.others) == (0.0, 1.0)


def test_settings_that_cannot_be_read_are_none() -> None:
    pod = running()
    pod["metadata"]["annotations"]["knative-sponge.dev/max-batch"] = "many"
    assert viewed(pod).settings is None


def test_sidecars_count_among_the_others_and_what_only_starts_does_not() -> None:
    pod = running()
    asks = {"resources": {"requests": {"cpu": "200m"}}}
    pod["spec"]["initContainers"] = [
        {"name": "mesh", "restartPolicy": "Always"} | asks,
        {"name": "fetch"} | asks,
    ]
    assert viewed(pod).others == pytest.approx(0.225)


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
def test_a_pending_resize_shows_with_its_message(reason: str) -> None:
    seen = viewed(conditioned(running(), "PodResizePending", reason=reason, message="no room", observedGeneration=3))
    assert (seen.pending, seen.progress, seen.message) == (reason, "", "no room")


@pytest.mark.parametrize(("reason", "progress"), [(None, "InProgress"), ("", "InProgress"), ("Error", "Error")])
def test_a_resize_in_progress_shows_and_so_does_its_error(reason: str | None, progress: str) -> None:
    more = {} if reason is None else {"reason": reason, "message": "runc says no"}
    seen = viewed(conditioned(running(), "PodResizeInProgress", **more))
    assert (seen.pending, seen.progress) == ("", progress)
    assert seen.message == more.get("message", "")


def test_conditions_of_an_older_spec_and_those_that_do_not_hold_do_not_count() -> None:
    assert viewed(conditioned(running(), "PodResizePending", reason="Infeasible", observedGeneration=2)).pending == ""
    assert viewed(conditioned(running(), "PodResizeInProgress", status="False")).progress == ""


def test_the_size_in_force_is_the_limit_and_where_only_the_request_moves_the_request() -> None:
    pod = running()
    status_of(pod)["resources"] = {"requests": {"cpu": "300m"}, "limits": {"cpu": "2"}}
    assert viewed(pod).in_force == 2.0
    del status_of(pod)["resources"]["limits"]
    assert viewed(pod).in_force == 0.3
    burst = running(cpu_limit="burst", max_cores="2")
    status_of(burst)["resources"] = {"requests": {"cpu": "300m"}, "limits": {"cpu": "2"}}
    assert (viewed(burst).in_force, viewed(burst).size) == (0.3, 0.1)


def test_a_limit_that_somebody_set_apart_from_the_request_is_the_size_that_counts() -> None:
    pod = running()
    container(pod, "user-container")["resources"]["limits"]["cpu"] = "2"
    assert viewed(pod).size == 2.0


def test_the_resize_is_told_what_the_pod_shows() -> None:
    pod = conditioned(running(), "PodResizePending", reason="Deferred", message="later")
    assert viewed(pod).seen() == Seen(0.1, 0.1, "Deferred", "", "later", 3, 3, 0.1)


# The patch


def test_request_and_limit_move_together() -> None:
    assert resize_body(viewed(running()), 1.5) == {
        "spec": {
            "containers": [
                {"name": "user-container", "resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "1500m"}}}
            ]
        }
    }


def resources_after(pod: Any, cores: float, memory: int | None = None) -> Any:
    return container(resized(pod, resize_body(viewed(pod), cores, memory)), "user-container")["resources"]


def test_a_missing_limit_is_added() -> None:
    pod = running()
    del container(pod, "user-container")["resources"]["limits"]["cpu"]
    assert resources_after(pod, 0.5)["limits"]["cpu"] == "500m"


@pytest.mark.parametrize(
    ("limit", "cores", "after"),
    [("2", 0.5, "2"), ("2", 3.0, "3"), (None, 3.0, None)],
    ids=["below the limit", "above the limit", "without a limit"],
)
def test_with_burst_the_limit_moves_only_where_it_must(limit: str | None, cores: float, after: str | None) -> None:
    pod = running(cpu_limit="burst")
    limits = container(pod, "user-container")["resources"]["limits"]
    limits |= {"cpu": limit} if limit else {}
    if limit is None:
        del limits["cpu"]
    found = resources_after(pod, cores)
    assert parse_quantity(found["requests"]["cpu"]) == cores
    assert found["limits"].get("cpu") == after


def test_memory_moves_only_when_asked_and_a_limit_only_where_there_is_one() -> None:
    assert resources_after(running(), 0.5)["limits"]["memory"] == "128Mi"
    found = resources_after(running(), 0.5, 96 * MI)
    assert found["requests"]["memory"] == found["limits"]["memory"] == str(96 * MI)
    pod = running()
    del container(pod, "user-container")["resources"]["limits"]["memory"]
    assert "memory" not in resources_after(pod, 0.5, 96 * MI)["limits"]


def test_the_memory_that_counts_is_the_limit_and_without_one_the_request() -> None:
    pod = running()
    assert (viewed(pod).memory, viewed(pod).memory_in_force) == (128 * MI, 128 * MI)
    del container(pod, "user-container")["resources"]["limits"]["memory"]
    assert (viewed(pod).memory, viewed(pod).memory_in_force) == (64 * MI, 64 * MI)
    del container(pod, "user-container")["resources"]["requests"]["memory"]
    assert viewed(pod).memory is None


def test_a_container_that_restarts_for_memory_says_so() -> None:
    pod = running()
    assert not viewed(pod).memory_restarts
    container(pod, "user-container")["resizePolicy"][1]["restartPolicy"] = "RestartContainer"
    assert viewed(pod).memory_restarts


def qos(pod: Any) -> str:
    """The QoS class as Kubernetes computes it, of CPU and memory of all containers."""
    every = [one.get("resources", {}) for one in pod["spec"]["containers"]]
    if not any(one.get("requests") or one.get("limits") for one in every):
        return "BestEffort"
    for one in every:
        for name in ("cpu", "memory"):
            limit = one.get("limits", {}).get(name)
            request = one.get("requests", {}).get(name, limit)
            if limit is None or parse_quantity(limit) != parse_quantity(request):
                return "Burstable"
    return "Guaranteed"


EVEN = {"requests": {"cpu": "25m", "memory": "64Mi"}, "limits": {"cpu": "25m", "memory": "64Mi"}}
AMOUNTS = st.fixed_dictionaries(
    {"cpu": st.sampled_from(["500m", "2"])}, optional={"memory": st.sampled_from(["64Mi", "128Mi"])}
)


@given(
    AMOUNTS,
    st.one_of(st.just({}), AMOUNTS),
    st.booleans(),
    st.sampled_from(["equal", "burst"]),
    st.sampled_from([0.1, 0.5, 2.0, 3.0]),
    st.sampled_from([None, 64 * MI]),
)
def test_no_resize_changes_the_qos_class(
    requests: Any, limits: Any, even: bool, cpu_limit: str, cores: float, memory: int | None
) -> None:
    pod = running(cpu_limit=cpu_limit)
    container(pod, "user-container")["resources"] = json.loads(json.dumps({"requests": requests, "limits": limits}))
    if even:
        container(pod, "queue-proxy")["resources"] = EVEN
    before = pod["status"]["qosClass"] = qos(pod)
    resized(pod, resize_body(viewed(pod), cores, memory))
    assert qos(pod) == before
    found = container(pod, "user-container")["resources"]
    assert parse_quantity(found["requests"]["cpu"]) == cores
    assert parse_quantity(found["limits"].get("cpu", "99")) >= cores
    assert viewed(pod).size == cores


def test_a_guaranteed_pod_stays_so_even_where_only_the_request_should_move() -> None:
    pod = running(cpu_limit="burst")
    container(pod, "user-container")["resources"] = {
        kind: {"cpu": "2", "memory": "64Mi"} for kind in ("requests", "limits")
    }
    container(pod, "queue-proxy")["resources"] = EVEN
    pod["status"]["qosClass"] = "Guaranteed"
    assert resources_after(pod, 0.5)["limits"]["cpu"] == "500m"


@pytest.mark.parametrize(("proxys", "limit"), [(EVEN, "501m"), ({"requests": {"cpu": "25m"}}, "500m")])
def test_a_limit_is_kept_apart_from_its_request_only_where_all_else_is_equal(proxys: Any, limit: str) -> None:
    pod = running()
    container(pod, "user-container")["resources"] |= {"limits": {"cpu": "2", "memory": "64Mi"}}
    container(pod, "queue-proxy")["resources"] = proxys
    assert resources_after(pod, 0.5)["limits"]["cpu"] == limit


@pytest.mark.parametrize(("limit", "kept"), [("64Mi", "501m"), ("128Mi", "500m")])
def test_a_resize_of_memory_makes_it_even_and_one_without_leaves_it_as_it_is(limit: str, kept: str) -> None:
    pod = running()
    amounts = {"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": limit}}
    container(pod, "user-container")["resources"] = amounts
    container(pod, "queue-proxy")["resources"] = EVEN
    assert resources_after(pod, 0.5)["limits"]["cpu"] == kept
    resized(pod, resize_body(viewed(pod), 0.5, 32 * MI))
    assert container(pod, "user-container")["resources"]["limits"]["cpu"] == "501m", "memory is even now"


@pytest.mark.parametrize(
    ("generation", "observed", "proven", "admitted"),
    [
        pytest.param(1, 1, 0.0, 0.1, id="never changed: as it was made"),
        pytest.param(2, 2, 0.0, 0.0, id="changed: nobody says"),
        pytest.param(1, 0, 0.0, 0.0, id="a cluster that does not count changes"),
        pytest.param(0, 0, 0.0, 0.0, id="no count"),
        pytest.param(2, 2, 0.05, 0.05, id="proven"),
    ],
)
def test_with_how_many_cores_it_was_admitted_is_not_for_the_pod_to_say(
    generation: int, observed: int, proven: float, admitted: float
) -> None:
    pod = running(generation=generation)
    pod["status"]["observedGeneration"] = observed
    container(pod, "queue-proxy")["env"].append({"name": "SPONGE_CORES", "value": "4096"})
    assert viewed(pod, proven).admitted == admitted
