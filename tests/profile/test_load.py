from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.profile.load import SENT_HEADER, SLO_HEADER, Outcome, Planned, Reply, lag_s, offer
from tests.virtual_time import run_virtual


@dataclass
class FakeService:
    """Answers request `body` after `delays[body]` seconds; remembers when each came and with which headers."""

    delays: list[float]
    reply: Reply = field(default_factory=lambda: Reply(200, None, 3))
    came: dict[int, tuple[float, Mapping[str, str]]] = field(default_factory=dict)

    async def send(self, body: int, headers: Mapping[str, str]) -> Reply:
        self.came[body] = (asyncio.get_running_loop().time(), headers)
        if self.delays[body] < 0:
            raise ConnectionResetError
        await asyncio.sleep(self.delays[body])
        return self.reply


def carry_out(planned: list[Planned], service: FakeService, patience_s: float = 5.0) -> tuple[float, list[Outcome]]:
    outcomes: list[Outcome] = []

    async def main() -> float:
        clock = asyncio.get_running_loop().time
        start = clock()
        await offer(planned, service, outcomes.append, patience_s=patience_s, clock=clock, unix_clock=lambda: 1.7e9)
        return start

    return run_virtual(main), outcomes


def test_the_service_is_handed_a_request_when_its_network_time_is_over() -> None:
    service = FakeService([0.0, 0.0])
    start, _ = carry_out([Planned(1.0, 0.25, 1.0, 0), Planned(1.1, 0.05, 1.0, 1)], service)
    assert service.came[0][0] - start == pytest.approx(1.25)
    assert service.came[1][0] - start == pytest.approx(1.15)


def test_send_time_and_budget_travel_as_headers() -> None:
    service = FakeService([0.0])
    carry_out([Planned(1.0, 0.25, 0.5, 0)], service)
    assert service.came[0][1] == {SENT_HEADER: str(1_700_000_001_000), SLO_HEADER: "500"}


def test_a_slow_answer_delays_no_later_request() -> None:
    service = FakeService([3.0, 0.0, 0.0])
    start, _ = carry_out([Planned(0.1 * index, 0.0, 1.0, index) for index in range(3)], service)
    assert [service.came[index][0] - start for index in range(3)] == pytest.approx([0.0, 0.1, 0.2])


def test_latency_and_slack_count_from_the_clients_send() -> None:
    (outcome,) = carry_out([Planned(1.0, 0.2, 0.5, 0)], FakeService([0.1]))[1]
    assert outcome.latency_s == pytest.approx(0.3)
    assert outcome.slack_s == pytest.approx(0.2)
    assert (outcome.met, outcome.batch) == (True, 3)


@pytest.mark.parametrize(
    ("delay", "reply", "met", "served"),
    [
        pytest.param(0.4, Reply(200), False, True, id="a late answer"),
        pytest.param(0.1, Reply(504, "hopeless"), False, False, id="an early refusal"),
        pytest.param(0.1, Reply(200), True, True, id="an answer in time"),
    ],
)
def test_only_a_2xx_by_the_deadline_meets_it(delay: float, reply: Reply, met: bool, served: bool) -> None:
    (outcome,) = carry_out([Planned(0.0, 0.2, 0.5, 0)], FakeService([delay], reply))[1]
    assert (outcome.met, outcome.served, outcome.reason) == (met, served, reply.reason)


def test_a_broken_connection_is_an_outcome_without_an_answer() -> None:
    (outcome,) = carry_out([Planned(0.0, 0.0, 0.5, 0)], FakeService([-1.0]))[1]
    assert (outcome.status, outcome.met, outcome.served) == (0, False, False)


def test_a_client_hangs_up_when_its_patience_ends() -> None:
    async def main() -> float:
        clock = asyncio.get_running_loop().time
        start = clock()
        heard: list[Outcome] = []
        await offer([Planned(1.0, 0.2, 0.5)], FakeService([100.0]), heard.append, patience_s=2.0, clock=clock)
        assert (heard[0].status, heard[0].met) == (0, False)
        return clock() - start

    assert run_virtual(main) == pytest.approx(3.5)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 5), st.floats(0.01, 2), st.floats(0, 3)), min_size=1, max_size=20)
)
def test_every_request_has_one_outcome_and_deadlines_are_judged_by_the_plan(
    requests: list[tuple[float, float, float, float]],
) -> None:
    planned = [Planned(at, network, slo, index) for index, (at, network, slo, _) in enumerate(requests)]
    _, outcomes = carry_out(planned, FakeService([delay for *_, delay in requests]), patience_s=100)
    assert sorted(outcome.planned.body for outcome in outcomes) == list(range(len(requests)))
    for outcome in outcomes:
        _, network, slo, delay = requests[outcome.planned.body]
        assert outcome.latency_s == pytest.approx(network + delay, abs=1e-6)
        if abs(network + delay - slo) > 1e-6:
            assert outcome.met == (network + delay < slo)
        assert outcome.lag_s == pytest.approx(0, abs=1e-6)


def test_the_generators_own_lateness_is_found() -> None:
    planned = Planned(0, 0, 1)
    assert lag_s([Outcome(planned, 0.001 * index, 1) for index in range(100)], 0.99) == pytest.approx(0.099)
    assert lag_s([], 0.99) == 0.0


@pytest.mark.parametrize("values", [(-1, 0, 1), (0, -1, 1), (0, 0, 0), (float("nan"), 0, 1)])
def test_impossible_requests_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        Planned(*values)
