"""What the leader shows: the wire form, the page, and the sentence that says why."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from knative_sponge.controller.reporting.board import Board
from knative_sponge.controller.reporting.rows import PATH, BoardError, NodeRow, Overview, PodRow, RevisionRow
from knative_sponge.controller.reporting.why import STALE_S, why
from knative_sponge.listener import Listener
from tests.controller.reporting.board_kit import CURVE, NODE, POD, REVISION, SHORT, nodes, revisions, steady
from tests.controller.revision_kit import run


@given(st.floats(0, 100), st.lists(revisions, max_size=2).map(tuple), st.lists(nodes, max_size=2).map(tuple))
def test_what_is_written_is_what_is_read(
    age_s: float, rows: tuple[RevisionRow, ...], some: tuple[NodeRow, ...]
) -> None:
    overview = Overview(age_s, rows, some)
    assert Overview.from_json(json.loads(overview.to_json())) == overview


def test_a_newer_leader_may_say_more_but_not_another_version_and_not_less() -> None:
    document = json.loads(Overview(0.1, (REVISION,), (NODE,)).to_json())
    document["revisions"][0]["mood"] = document["weather"] = "fine"
    assert Overview.from_json(document).revisions == (REVISION,)
    with pytest.raises(BoardError, match="version 2"):
        Overview.from_json({**document, "v": 2})
    del document["revisions"][0]["pods"][0]["want"]
    with pytest.raises(BoardError, match="want"):
        Overview.from_json(document)


def test_an_older_leader_that_knows_of_no_costs_is_read() -> None:
    document = json.loads(Overview(0.1, (REVISION,), (NODE,)).to_json())
    for pod in document["revisions"][0]["pods"]:
        del pod["cost"]
    (revision,) = Overview.from_json(document).revisions
    assert revision.pods == tuple(replace(pod, cost=None) for pod in REVISION.pods)


@pytest.mark.parametrize("field", ["cores", "target", "want", "rate"])
@pytest.mark.parametrize("number", [-0.1, float("nan"), float("inf")])
def test_no_row_holds_an_impossible_number(field: str, number: float) -> None:
    with pytest.raises(ValueError, match="not finite or below zero"):
        steady(**{field: number})


@given(st.floats(0.0, 3.0))
def test_expected_misses_lie_on_the_curve(cores: float) -> None:
    missed = POD.misses(cores)
    assert missed is not None
    assert CURVE[-1][1] <= missed <= CURVE[0][1]
    between = next(((low, high) for low, high in pairwise(CURVE) if low[0] <= cores <= high[0]), None)
    if between is None:
        assert missed in (CURVE[0][1], CURVE[-1][1])
    else:
        (c1, m1), (c2, m2) = between
        assert missed * (c2 - c1) == pytest.approx(m1 * (c2 - cores) + m2 * (cores - c1))
    assert replace(POD, curve=()).misses(cores) is None


def test_the_page_is_the_latest_that_was_published_and_its_age() -> None:
    now = [100.0]
    board = Board(clock=lambda: now[0])
    board.publish(lambda: ([], []))
    board.publish(lambda: ([REVISION], [NODE]))
    now[0] = 100.25

    async def body() -> None:
        listener = Listener(Starlette(routes=board.routes), "127.0.0.1", 0)
        await listener.start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.port}") as session:
                async with session.get(PATH) as answer:
                    assert answer.content_type == "application/json"
                    assert Overview.from_json(await answer.json()) == Overview(0.25, (REVISION,), (NODE,))
                board.clear()
                async with session.get(PATH) as answer:
                    assert (answer.status, await answer.json()) == (503, {"message": "this replica does not lead"})
        finally:
            await listener.stop()

    run(body())


def test_other_pods_are_not_told_who_runs_what() -> None:
    board = Board()
    board.publish(lambda: ([REVISION], [NODE]))

    async def body() -> None:
        listener = Listener(Starlette(routes=board.routes), None, 0)
        await listener.start()
        statuses = []
        try:
            for own, host in (("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.2"), ("127.0.0.6", "127.0.0.1")):
                connector = aiohttp.TCPConnector(local_addr=(own, 0))
                url = f"http://{host}:{listener.port}{PATH}"
                async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
                    statuses.append(answer.status)
                    assert (REVISION.name in await answer.text()) == (answer.status == 200)
        finally:
            await listener.stop()
        assert statuses == [200, 403, 403]

    run(body())


@pytest.mark.parametrize(
    ("pods", "wanted", "node", "sentence"),
    [
        ((), 2, NODE, "waits for 2 pods to start"),
        ((), 0, NODE, "at zero: no requests"),
        ((POD, replace(POD, news_s=None)), 2, NODE, "no news from 1 of 2 pods: they keep their size"),
        ((replace(POD, news_s=STALE_S + 1),), 1, NODE, "no news from 1 of 1 pods: they keep their size"),
        ((replace(POD, pending="no room on n1"),), 1, SHORT, "a resize waits: no room on n1"),
        ((steady(want=3.1),), 1, SHORT, "short: node n1 has 2.5 cores for 3.1 wanted"),
        ((steady(),), 1, SHORT, "1 rows/s miss, and more cores would save none of them"),
        ((POD,), 1, NODE, "wants 1.2 cores: 2 rows/s miss at 0.8"),
        ((replace(POD, curve=()),), 1, NODE, "wants 1.2 cores, has 0.8"),
        ((steady(curve=((0.4, 0.0), (1.6, 0.0))),), 1, NODE, "1.2 cores are enough for 14.2 rows/s"),
        (
            (steady(want=0.6, curve=((0.4, 0.0), (1.6, 0.0))),),
            1,
            NODE,
            "1.2 cores are enough for 14.2 rows/s: 0.6 are wanted, the rest nobody else needs now",
        ),
    ],
)
def test_the_sentence_names_what_presses_most(
    pods: tuple[PodRow, ...], wanted: int, node: NodeRow, sentence: str
) -> None:
    assert why(pods, wanted, {"n1": node}.get) == sentence


def test_reading_it_needs_no_server_libraries() -> None:
    code = "import knative_sponge.controller.reporting.rows, knative_sponge.controller.reporting.why, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"starlette", "uvicorn", "prometheus_client", "kubernetes", "msgspec"} & set(loaded)
