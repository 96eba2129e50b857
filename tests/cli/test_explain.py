"""`sponge explain`: its numbers are the core's own, and its words name what decided."""

from __future__ import annotations

import http.server
import json
import math
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.cli.explain import choose, text
from knative_sponge.cli.local_state import read_state
from knative_sponge.cli.main import main
from knative_sponge.cli.sizing import Sizing, headroom_share
from knative_sponge.controller.reporting.rows import Overview
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json
from knative_sponge.errors import SettingError
from knative_sponge.settings import ServingSettings
from tests.controller.reporting.board_kit import CURVE, NODE, POD, REVISION, SHORT, of, steady

OVERVIEW = Overview(0.1, (REVISION,), (NODE,))

parameters = st.tuples(*[st.floats(1e-4, 0.05)] * 4)


@given(
    parameters, parameters, st.floats(0.1, 50), st.none() | st.floats(0.01, 2), st.integers(1, 16), st.integers(1, 3)
)
def test_the_floor_serves_what_arrives_and_a_little_less_does_not(
    params: tuple[float, float, float, float],
    cost: tuple[float, float, float, float],
    rate: float,
    slack_s: float | None,
    rows: int,
    slots: int,
) -> None:
    sizing = Sizing(
        replace(POD, params=params, cost=cost, rate=rate, slack_s=slack_s),
        replace(REVISION, max_batch=rows, max_inflight=slots),
    )
    curve, needed = LatencyParams(*cost), (1 + headroom_share()) * rate
    bound_s = slack_s or math.inf

    def served(cores: float, bound_s: float) -> float:
        times = ((b, curve.latency_s(b, cores / slots)) for b in range(1, rows + 1))
        return max((slots * b / t for b, t in times if t <= bound_s), default=0.0)

    cores, urgent = sizing.floor()
    if cores is None:
        assert served(1e6, math.inf) <= needed * (1 + 1e-6)
        return
    assert urgent or served(1e6, bound_s) <= needed * (1 + 1e-6)
    limit_s = bound_s if urgent else math.inf
    if urgent and served(cores * (1 + 1e-6), bound_s / 2 * (1 + 1e-6)) >= needed * (1 - 1e-6):
        limit_s = bound_s / 2  # a request that just misses a batch waits for two
        assert served(cores / 3 * (1 - 1e-6), bound_s * (1 - 1e-6)) <= needed * (1 + 1e-6), (
            "not for more than 3 × the cores"
        )
    elif urgent:
        assert served(3 * cores * (1 - 1e-6), bound_s / 2 * (1 - 1e-6)) <= needed * (1 + 1e-6), (
            "3 × the cores were enough"
        )
    assert served(cores * (1 + 1e-6), limit_s * (1 + 1e-6)) >= needed * (1 - 1e-6)
    assert served(cores * (1 - 1e-6), limit_s * (1 - 1e-6)) <= needed * (1 + 1e-6)


def test_a_pod_that_tells_no_costs_is_judged_by_its_latency() -> None:
    assert POD.cost is None
    assert Sizing(POD, REVISION).floor() == Sizing(replace(POD, cost=POD.params), REVISION).floor()


def test_what_a_size_can_serve_follows_from_costs_and_one_row_from_the_latency() -> None:
    cheap, dear = (Sizing(replace(POD, cost=cost), REVISION).at(0.5) for cost in (None, (0.2, 0.0, 0.0, 0.0)))
    assert dear.served == pytest.approx(0.5 / 0.2)
    assert cheap.served is not None
    assert dear.served is not None
    assert cheap.served > dear.served
    assert cheap.one_s == dear.one_s


def test_a_size_is_judged_by_the_curve_and_the_latency_model() -> None:
    at = Sizing(POD, REVISION).at(1.2)
    curve = LatencyParams(0.02, 0.004, 0.01, 0.002)
    assert at.missed == pytest.approx(1.0)
    assert at.one_s == curve.latency_s(1, 1.2)
    assert at.served == pytest.approx(8 / curve.latency_s(8, 1.2))
    assert at.batch == 8
    assert curve.latency_s(3, 0.4) <= 0.24 < curve.latency_s(4, 0.4)
    assert Sizing(POD, REVISION).at(0.4).batch == 3
    two = Sizing(POD, replace(REVISION, max_inflight=2)).at(1.2)
    assert two.one_s == curve.latency_s(1, 0.6)
    assert two.served == pytest.approx(2 * 8 / curve.latency_s(8, 0.6))


def test_half_and_double_are_among_the_sizes() -> None:
    assert Sizing(POD, REVISION).sizes() == {0.4: "half", 0.8: "now", 1.2: "target, want", 1.6: "double"}
    assert set(Sizing(POD, REVISION).sizes()) >= {cores for cores, _ in CURVE}


def test_a_pod_without_demand_still_has_its_sizes_explained() -> None:
    silent = replace(POD, curve=(), params=None, news_s=None, slack_s=None, met=0, missed=0)
    shown = text(of(silent), OVERVIEW)
    assert "news    none was ever heard: the pod keeps its size" in shown
    assert "floor" not in shown
    assert [line.split() for line in shown.splitlines() if "half" in line] == [["0.400", "-", "-", "-", "-", "half"]]


def test_the_text_names_load_floor_node_and_resize() -> None:
    shown = text(REVISION, OVERVIEW)
    assert shown.startswith(
        "shop/ocr-00001: slo 500ms; priority 5; 0.1 cores to 2; scaling vertical, 1 of 1 pods\n"
        "wants 1.2 cores: 2 rows/s miss at 0.8\n\nocr-1 on n1\n"
    )
    cores, _ = Sizing(POD, REVISION).floor()
    for words in (
        "0.8 cores in force, 1.2 wanted, 1.2 given; resize patched",
        "14.2 rows/s, rows waiting: 3, batches running: 1, 95 % of requests arrive with 240ms or more left",
        "10 of 2000 requests",
        f"{cores:.3g} cores serve 14.2 rows/s with 10 % to spare",
        "4 cores, 1.5 of them others', 1.2 of 2.5 given; all 1.2 wanted fit",
    ):
        assert words in shown


def test_a_short_node_and_a_waiting_resize_are_told_in_their_words() -> None:
    pod = steady(want=3.1, target=2.5, phase="deferred", pending="Node didn't have enough capacity: cpu")
    shown = text(of(pod), Overview(0.1, (of(pod),), (SHORT,)))
    assert "short of the 3.1 wanted: they go where they save most, this pod 2.5 of 3.1" in shown
    assert "resize deferred (Node didn't have enough capacity: cpu)" in shown


def test_what_no_number_of_cores_can_serve_is_said() -> None:
    serial = replace(POD, params=(0.0, 0.2, 0.0, 0.0))
    assert "no number of cores serves 14.2 rows/s" in text(of(serial), OVERVIEW)
    slow = replace(POD, params=(0.0, 0.0, 0.1, 0.3), rate=10.0)
    assert "though in batches too slow for the most urgent" in text(of(slow), OVERVIEW)


def test_a_revision_or_all_of_a_service_is_chosen() -> None:
    second = replace(REVISION, name="ocr-00002")
    elsewhere = replace(REVISION, namespace="lab")
    rows = Overview(0.1, (REVISION, second, elsewhere), ())
    assert choose(rows, "ocr-00002", None) == [second]
    assert choose(rows, "ocr", "shop") == [REVISION, second]
    with pytest.raises(SettingError, match="lab, shop"):
        choose(rows, "ocr-00001", None)
    with pytest.raises(SettingError, match="there are: lab/ocr-00001"):
        choose(rows, "x", "lab")


def local_state() -> dict[str, Any]:
    """What a proxy of `sponge run` shows (proxy/queue/wiring.py)."""
    settings = ServingSettings(slo_s=0.5, max_batch=8, max_cores=2.0).effective()
    return {
        "version": "0",
        "settings": settings,
        "cores": {"now": 0.8, "coming": None, "want": 0.9, "max": 2.0},
        "queue": {"requests": 1, "rows": 2, "late": 0, "slack_s": 0.1},
        "running": [{"rows": 1, "requests": 1, "for_s": 0.01}],
        "rate": 10.0,
        "model": to_json(LatencyModel(LatencyParams(0.02, 0.004, 0.01, 0.002))),
    }


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    """An address, and the document that it serves."""
    document = local_state()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}/sponge/v1/state", document
        listener.shutdown()
        thread.join()


def test_a_local_server_is_explained_by_its_state(
    server: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, document = server
    assert main(["explain", "--state", url]) == 0
    shown = capsys.readouterr().out
    assert "local/server: slo 500ms" in shown
    assert "0.8 cores in force, 0.9 wanted" in shown
    cores, _ = Sizing(read_state(url).pods[0], read_state(url)).floor()
    assert f"{cores:.3g} cores serve 10.0 rows/s" in shown
    del document["cores"]
    assert main(["explain", "--state", url]) == 2
    assert capsys.readouterr().err.startswith("sponge explain: --state: ")


def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "operate.md").read_text()
    assert textwrap.indent(text(REVISION, OVERVIEW), "    ") in page


def test_what_cannot_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--state", "file:///etc/hostname"]) == 2
    assert "the address of a proxy's /sponge/v1/state" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["explain"])
    assert end.value.code == 2
