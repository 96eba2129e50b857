"""A pod says whatever it likes of its needs, with the real divider in virtual time: it costs its neighbours in other namespaces
nothing below their fair share."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from knative_sponge.controller.kube.informer import Changed
from knative_sponge.wire.demand import DemandLine, decode_demand
from tests.controller.admission_kit import container
from tests.controller.sizing.divider_kit import Stage, staged

CORES = 8.0
FAIR = 4.0

_sizes = st.sampled_from([0.001, 0.5, 7.0, 1e6])
_misses = st.sampled_from([0.0, 1.0, 1e6, 1e12])
_counts = st.sampled_from([0, 1, 1000, 2**53])


@st.composite
def lines(draw: st.DrawFn) -> DemandLine:
    """Anything that can be read as a demand."""
    curve = sorted({draw(_sizes): draw(_misses) for _ in range(draw(st.integers(0, 4)))}.items())
    line = DemandLine(
        cores=draw(_sizes), want=draw(_sizes), rate=draw(_misses), queued=draw(_counts), running=draw(_counts),
        max_batch=draw(_counts), curve=tuple(curve), idle_s=0.0, slack=draw(st.sampled_from([None, -1e12, 1e12])),
    )  # fmt: skip
    return decode_demand(msgspec.json.encode(line))


GREEDY = DemandLine(cores=1.0, want=1e6, rate=1e6, curve=((0.1, 1e6), (1e6, 0.0)))


@settings(max_examples=30, deadline=None)
@given(
    said=st.lists(lines() | st.none(), min_size=1, max_size=4),
    liars=st.integers(1, 3),
    annotations=st.sampled_from([{"priority": "9"}, {"priority": "9", "min_cores": "4096"}, {"cpu_limit": "burst"}]),
)
@example(said=[GREEDY], liars=1, annotations={"priority": "9"})
@example(said=[GREEDY, None, None, None], liars=3, annotations={"priority": "9", "min_cores": "4096"})
def test_whatever_it_says_its_neighbours_have_their_fair_share(
    said: list[DemandLine | None], liars: int, annotations: dict[str, str]
) -> None:
    """None says nothing for four seconds."""

    async def body(stage: Stage) -> None:
        stage.remove("b")
        names = [f"liar-{number}" for number in range(liars)]
        for name in names:
            stage.add(name, namespace="liars")
            stage.change(name, None, **annotations)  # of the Revision, after the pod was admitted
            stage.tell_line(name, DemandLine(cores=0.5, want=0.5))
        for line in said:
            for _ in range(4):
                stage.say("a", 6.0)
                for name in names if line is not None else ():
                    stage.tell_line(name, line)  # type: ignore[arg-type]
                await stage.divided()
                await asyncio.sleep(1.0)
            # A second for the liars' shrinks, which go first, and one for the growth.
            assert stage.resizer("a").machine.asked >= FAIR * 0.98 - 0.02
            assert sum(stage.resizer(name).machine.asked for name in ("a", *names)) <= CORES + 0.001
            assert stage.resizer("a").pod.size >= FAIR * 0.98 - 0.02

    staged(body)


def test_a_liar_that_has_grown_while_its_neighbour_was_idle_gives_back_what_is_fair_although_it_falls_silent() -> None:
    async def body(stage: Stage) -> None:
        stage.remove("b")
        stage.add("liar", namespace="liars")
        stage.change("liar", priority="9")
        for _ in range(6):
            stage.say("a", 0.1)
            stage.tell_line("liar", GREEDY)
            await stage.divided()
            await asyncio.sleep(1.0)
        assert stage.resizer("liar").machine.asked > 7.0
        for _ in range(6):
            stage.say("a", 6.0)
            await stage.divided()
            await asyncio.sleep(1.0)
        assert stage.resizer("a").machine.asked >= FAIR * 0.98
        assert stage.resizer("liar").machine.asked <= FAIR + 0.001

    staged(body)


def test_what_one_resize_can_give_a_neighbour_is_not_less_for_a_liars_least_size() -> None:
    """A proxy drops what it cannot save within this reach."""

    async def body(stage: Stage) -> None:
        stage.remove("b")
        stage.add("liar", namespace="liars")
        stage.change("liar", min_cores="4096")
        for _ in range(3):
            stage.say("a", 1.0)
            stage.tell_line("liar", GREEDY)
            await stage.divided()
            await asyncio.sleep(1.0)
        assert stage.resizer("a")._reach >= FAIR

    staged(body)


@pytest.mark.parametrize("name", ["misses", "wants"])
def test_what_a_proxy_says_counts_no_further_than_it_can_show(name: str) -> None:
    """Within one namespace: its own sibling is outbid by no more than real misses."""
    line = {
        "misses": DemandLine(cores=0.5, want=8.0, rate=2.0, queued=1, curve=((0.1, 1e12), (8.0, 0.0))),
        "wants": DemandLine(cores=0.5, want=1e6, rate=2.0, queued=1, curve=((0.1, 3.0), (8.0, 0.0))),
    }[name]

    async def body(stage: Stage) -> None:
        stage.tell_line("b", line)
        known: Any = stage.divider.pods["default", "b"].demand
        assert known.line.curve[0][1] <= 3.0
        assert known.line.want <= CORES
        assert known.peak <= CORES

    staged(body)


def liar_from_elsewhere(stage: Stage, cores: float, proven: float = 0.0) -> None:
    """A pod that this leader sees first with so many cores, and that says it was admitted with 4096."""
    stage.remove("b")
    stage.proven["liar"] = proven
    stage.add("liar", cores, namespace="liars")
    pod: Any = stage.store.pods["liar"]
    env = container(pod, "queue-proxy")["env"]
    env[:] = [one for one in env if one["name"] != "SPONGE_CORES"] + [{"name": "SPONGE_CORES", "value": "4096"}]
    stage.put(pod)
    # Seen anew, as a leader that has just begun sees it.
    key = stage.keys["liar"]
    known = stage.place.pods[key]
    stage.place.tell(Changed(key, known, None))
    stage.place.tell(Changed(key, None, known))


@pytest.mark.parametrize(
    ("cores", "proven"),
    [
        pytest.param(0.5, 0.0, id="says a size, small when seen first"),
        pytest.param(7.0, 0.0, id="says a size, and has grown while its neighbour was idle"),
        pytest.param(7.0, 0.1, id="was admitted with a tenth, and has grown"),
        pytest.param(0.5, 4096.0, id="has copied what a pod of thousands of cores carried"),
    ],
)
def test_a_pod_has_no_claim_to_a_size_that_it_was_not_admitted_with(cores: float, proven: float) -> None:
    """What it carries can be chosen by who makes it, and what it has may be what its neighbours did not need."""

    async def body(stage: Stage) -> None:
        liar_from_elsewhere(stage, cores, proven)
        for _ in range(6):
            stage.say("a", 6.0)
            stage.tell_line("liar", GREEDY)
            await stage.divided()
            await asyncio.sleep(1.0)
        assert stage.resizer("a").machine.asked >= FAIR * 0.98

    staged(body)


def test_a_pod_that_was_admitted_with_more_than_its_share_keeps_that_whatever_its_neighbours_say() -> None:
    async def body(stage: Stage) -> None:
        stage.remove("b")
        stage.proven["large"] = 6.0
        stage.add("large", 6.0, namespace="honest")
        stage.add("liar", namespace="liars")
        stage.change("liar", priority="9")
        for _ in range(6):
            for name in ("a", "liar"):
                stage.tell_line(name, GREEDY)
            stage.say("large", 6.0)
            await stage.divided()
            await asyncio.sleep(1.0)
        assert stage.resizer("large").machine.asked >= 6.0 * 0.98

    staged(body)
