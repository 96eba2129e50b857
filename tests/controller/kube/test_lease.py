"""Who leads: the rule against every order of events, then the process against a server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.lease import Election, Elector
from knative_sponge.controller.kube.resource import LEASES, Object
from knative_sponge.errors import NotLeader
from tests.controller.apiserver import FakeApi, Refused
from tests.controller.revision_kit import run, until

WALL = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SPACE = "knative-sponge"


def candidate(name: str, duration_s: float = 15.0) -> Election:
    return Election(name, SPACE, "autoscaler", duration_s)


class Store:
    """A Lease with the API server's one rule: a write needs the version it was read at."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self._version = 0

    def write(self, wish: Object) -> Object | None:
        version = wish["metadata"].get("resourceVersion")
        stored = None if self.lease is None else self.lease["metadata"]["resourceVersion"]
        if version != stored:
            return None
        self._version += 1
        self.lease = wish | {"metadata": wish["metadata"] | {"resourceVersion": str(self._version)}}
        return self.lease


def turn(election: Election, store: Store, now: float, answered: float | None = None) -> bool:
    """Look and try: does it lead then?"""
    election.saw(store.lease, now)
    wish = election.wish(now, WALL)
    if wish is not None and (lease := store.write(wish)) is not None:
        election.won(lease, now, now if answered is None else answered)
    return election.leads(now if answered is None else answered)


def test_the_first_to_ask_leads_and_others_wait() -> None:
    store, one, two = Store(), candidate("one"), candidate("two")
    assert turn(one, store, 0.0)
    assert not turn(two, store, 0.1)
    assert two.wish(14.9, WALL) is None


def test_a_leader_that_renews_keeps_leading() -> None:
    store, one, two = Store(), candidate("one"), candidate("two")
    for second in range(0, 100, 2):
        assert turn(one, store, float(second))
        assert not turn(two, store, second + 0.5)
    assert store.lease is not None
    assert store.lease["spec"]["leaseTransitions"] == 0


def test_a_silent_leader_stops_before_another_can_begin() -> None:
    store, one, two = Store(), candidate("one"), candidate("two")
    turn(one, store, 0.0)
    turn(two, store, 0.0)
    assert one.leads(9.9)
    assert not one.leads(10.0)
    assert not turn(two, store, 14.9)
    assert turn(two, store, 15.0)
    assert store.lease is not None
    assert store.lease["spec"]["leaseTransitions"] == 1


def test_a_renewal_that_was_answered_late_counts_from_when_it_was_sent() -> None:
    store, one = Store(), candidate("one")
    assert not turn(one, store, 0.0, answered=10.0)


def test_a_wall_clock_that_is_wrong_changes_nothing() -> None:
    store, one, two = Store(), candidate("one"), candidate("two")
    turn(one, store, 0.0)
    assert store.lease is not None
    store.lease["spec"]["renewTime"] = "1990-01-01T00:00:00.000000Z"
    assert not turn(two, store, 1.0)


def test_a_lease_given_up_is_taken_at_once() -> None:
    store, one, two = Store(), candidate("one"), candidate("two")
    turn(one, store, 0.0)
    turn(two, store, 1.0)
    lease = one.resignation(1.5)
    assert lease is not None
    store.write(lease)
    assert not one.leads(1.5)
    assert turn(two, store, 2.0)


def test_who_does_not_lead_has_nothing_to_give_up() -> None:
    store, one, two = Store(), candidate("one"), candidate("two")
    turn(one, store, 0.0)
    turn(two, store, 0.0)
    assert two.resignation(1.0) is None
    assert one.resignation(11.0) is None


def test_the_same_pod_after_a_restart_leads_at_once() -> None:
    store = Store()
    turn(candidate("one"), store, 0.0)
    assert turn(candidate("one"), store, 1.0)


def test_who_sees_another_holder_stops_at_once() -> None:
    store, one = Store(), candidate("one")
    turn(one, store, 0.0)
    assert store.lease is not None
    stolen = store.lease | {"spec": store.lease["spec"] | {"holderIdentity": "thief"}}
    one.saw(stolen, 1.0)
    assert not one.leads(1.0)


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0.0, 20.0), st.floats(0.0, 12.0), st.booleans()), min_size=1, max_size=40
)


@given(STEPS)
def test_there_are_never_two_leaders(steps: list[tuple[int, float, float, bool]]) -> None:
    """Candidates look at any time, their writes arrive at any time until they are answered, and answers get lost."""
    store = Store()
    candidates = [candidate(f"pod-{number}") for number in range(3)]
    now = 0.0
    for number, wait_s, flight_s, answered in steps:
        now += wait_s
        one = candidates[number]
        one.saw(store.lease, now)
        sent_at = now
        wish = one.wish(sent_at, WALL)
        assert sum(each.leads(now) for each in candidates) <= 1
        if wish is None:
            continue
        lease = store.write(wish)
        now += flight_s
        if lease is not None and answered:
            one.won(lease, sent_at, now)
        assert sum(each.leads(now) for each in candidates) <= 1


@pytest.mark.parametrize(("name", "duration_s"), [("", 15.0), ("a", 0.5)])
def test_an_impossible_candidate_is_refused(name: str, duration_s: float) -> None:
    with pytest.raises(ValueError, match="candidate"):
        candidate(name, duration_s)


class Leading:
    """Work that tells when it runs."""

    def __init__(self) -> None:
        self.runs = False
        self.times = 0

    async def __call__(self) -> None:
        self.runs, self.times = True, self.times + 1
        try:
            await asyncio.Event().wait()
        finally:
            self.runs = False


def elector(kube: Kube, name: str, duration_s: float = 1.5) -> Elector:
    return Elector(kube, name, SPACE, "autoscaler", duration_s)


async def ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_one_of_two_replicas_works_and_the_other_takes_over_when_it_leaves() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            first, second = Leading(), Leading()
            one = asyncio.create_task(elector(kube, "one", 15.0).run(first))
            await until(lambda: first.runs)
            two = asyncio.create_task(elector(kube, "two", 1.5).run(second))
            await until(lambda: api.watches == 0 and api.get(LEASES, "autoscaler", SPACE) is not None)
            assert not second.runs
            await ended(one)
            assert not first.runs
            await until(lambda: second.runs)
            await ended(two)
            lease = api.get(LEASES, "autoscaler", SPACE)
            assert lease is not None
            assert lease["spec"]["holderIdentity"] == ""
            await kube.close()

    run(body())


def test_a_leader_cut_off_from_the_server_stops_working_and_its_writes_are_held_back() -> None:
    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            work = Leading()
            one = elector(kube, "one")
            task = asyncio.create_task(one.run(work))
            await until(lambda: work.runs)
            one.fence()

            def unavailable(_method: str, _path: str) -> None:
                raise Refused(503, "ServiceUnavailable")

            api.before = unavailable
            await until(lambda: not work.runs)
            with pytest.raises(NotLeader):
                one.fence()
            api.before = lambda _method, _path: None
            await until(lambda: work.times == 2)
            await ended(task)
            await kube.close()

    run(body())


def test_work_that_fails_or_ends_ends_the_replica() -> None:
    async def fails() -> None:
        raise RuntimeError("broken")

    async def ends() -> None:
        return

    async def body() -> None:
        async with FakeApi() as api:
            kube = Kube.at(api.url)
            with pytest.raises(RuntimeError, match="broken"):
                await elector(kube, "one").run(fails)
            with pytest.raises(RuntimeError, match="ended by itself"):
                await elector(kube, "two").run(ends)
            await kube.close()

    run(body())
