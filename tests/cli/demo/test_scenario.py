from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.cli.demo.scenario import SURGE, Scenario, cores_for_server, make_scenario, slo_for
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.throughput import max_throughput
from knative_sponge.profile.arrivals import ArrivalKind
from knative_sponge.profile.trace import TraceKind

PARAMS = LatencyParams(0.02, 0.004, 0.003, 0.001)
PAYLOADS = (30_000, 100_000, 240_000)


def scenario(params: LatencyParams = PARAMS, seed: int = 1, **other: object) -> Scenario:
    settings = {"max_cores": 1.4, "max_batch": 32, "payloads": PAYLOADS, "seconds": 30, "seed": seed}
    return make_scenario(params, **(settings | other))  # type: ignore[arg-type]


params = st.builds(LatencyParams, st.floats(0.001, 0.5), st.floats(0, 0.1), st.floats(0, 0.1), st.floats(0, 0.1))


@given(params, st.integers(0, 100))
def test_a_surge_asks_for_most_of_the_machine_but_not_for_more_than_it_has(curve: LatencyParams, seed: int) -> None:
    most = max_throughput(curve, 1.4, 32)
    peak = max(scenario(curve, seed).rates)
    assert peak < most
    assert peak > 0.6 * most or peak == pytest.approx(120)


@given(params)
def test_capacity_is_the_best_any_batch_does(curve: LatencyParams) -> None:
    best = max_throughput(curve, 0.7, 16)
    assert all(rows / curve.latency_s(rows, 0.7) <= best * (1 + 1e-9) for rows in range(1, 17))


@given(params)
def test_one_image_can_be_served_within_the_deadline_many_times_over(curve: LatencyParams) -> None:
    assert slo_for(curve, 1.2) >= max(0.5, 8 * curve.latency_s(1, 0.4) - 1e-9)


def test_the_load_has_surges_and_requests_carry_bodies_that_exist() -> None:
    one = scenario()
    assert max(one.rates) == pytest.approx(SURGE * min(one.rates))
    assert {request.body for request in one.planned} == set(range(len(PAYLOADS)))
    assert all(0 <= request.at_s < 30 and request.slo_s == one.slo_s for request in one.planned)


def test_network_time_grows_with_the_payload_at_any_moment() -> None:
    by_second: dict[int, dict[int, float]] = {}
    for request in scenario().planned:
        by_second.setdefault(int(request.at_s), {})[request.body] = request.network_s
    for times in by_second.values():
        assert [times[body] for body in sorted(times)] == sorted(times.values())


def test_equal_seeds_plan_equal_loads() -> None:
    assert scenario() == scenario()
    assert scenario(seed=2).planned != scenario().planned


def test_what_the_user_sets_is_kept() -> None:
    one = scenario(slo_s=0.75, base_rate=5.0, arrival=ArrivalKind.UNIFORM, trace=TraceKind.DIPS)
    assert (one.slo_s, min(one.rates), max(one.rates)) == (0.75, 5.0, 5.0 * SURGE)
    assert (one.arrival, one.trace) == ("uniform", "dips")


@pytest.mark.parametrize(("machine", "server"), [(1, 0.4), (2, 1.4), (4, 3.4), (64, 4.0)])
def test_the_server_gets_what_proxy_and_client_leave(machine: int, server: float) -> None:
    assert cores_for_server(machine) == server
