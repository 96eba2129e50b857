"""The controller's metrics: what is told is what is shown, and what is gone is shown no more."""

from __future__ import annotations

from typing import get_args

from knative_sponge.controller.reporting.metrics import Metrics, ResizeOutcome


def shown(metrics: Metrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]


def of_objects(metrics: Metrics) -> list[str]:
    return [line for line in shown(metrics) if line.startswith(("sponge_revision_", "sponge_node_"))]


def test_revisions_and_nodes_are_shown_until_they_are_forgotten() -> None:
    metrics = Metrics()
    metrics.revision("shop", "ocr-1", cores=0.8, wanted=1.2, pods=1, pods_wanted=2)
    metrics.revision("shop", "ocr-2", cores=0.0, wanted=0.0, pods=0, pods_wanted=0)
    metrics.node("n1", allocatable=4, reserved=1.5, divided=2.5, short=True)
    metrics.forget_revision("shop", "ocr-2")
    assert of_objects(metrics) == [
        'sponge_revision_cores{namespace="shop",revision="ocr-1"} 0.8',
        'sponge_revision_cores_wanted{namespace="shop",revision="ocr-1"} 1.2',
        'sponge_revision_pods{namespace="shop",revision="ocr-1"} 1.0',
        'sponge_revision_pods_wanted{namespace="shop",revision="ocr-1"} 2.0',
        'sponge_node_cores_allocatable{node="n1"} 4.0',
        'sponge_node_cores_reserved{node="n1"} 1.5',
        'sponge_node_cores_divided{node="n1"} 2.5',
        'sponge_node_short{node="n1"} 1.0',
    ]
    metrics.forget_node("n1")
    metrics.forget_node("n1")
    metrics.forget_revision("shop", "ocr-1")
    assert of_objects(metrics) == []


def test_whoever_leads_no_more_knows_nothing_of_the_cluster() -> None:
    metrics = Metrics()
    metrics.leads(True)
    metrics.revision("shop", "ocr-1", cores=0.8, wanted=1.2, pods=1, pods_wanted=2)
    metrics.node("n1", allocatable=4, reserved=1.5, divided=2.5, short=True)
    metrics.streams(live=3, stale=1, down=2)
    assert {line for line in shown(metrics) if "streams" in line} == {
        'sponge_demand_streams{state="live"} 3.0',
        'sponge_demand_streams{state="stale"} 1.0',
        'sponge_demand_streams{state="down"} 2.0',
    }
    metrics.leads(False)
    assert of_objects(metrics) == []
    assert all(line.endswith(" 0.0") for line in shown(metrics) if "streams" in line or "leader" in line)


def test_what_changes_all_the_time_is_looked_at_when_somebody_asks() -> None:
    metrics, looks = Metrics(), iter((3, 4))
    metrics.leads(True)
    metrics.publish(lambda: metrics.streams(live=next(looks), stale=0, down=0))
    for live in (3, 4):
        assert f'sponge_demand_streams{{state="live"}} {live}.0' in shown(metrics)
    metrics.leads(False)
    assert 'sponge_demand_streams{state="live"} 0.0' in shown(metrics)


def test_resizes_are_counted_and_their_times_kept() -> None:
    metrics = Metrics()
    for outcome in get_args(ResizeOutcome):
        metrics.resized(outcome)
    metrics.patch_lag(0.02)
    metrics.applied_lag(1.2)
    metrics.divided(0.002)
    lines = shown(metrics)
    for outcome in get_args(ResizeOutcome):
        assert f'sponge_resizes_total{{outcome="{outcome}"}} 1.0' in lines
    for name, seconds in (("resize_patch", 0.02), ("resize_applied", 1.2), ("divide", 0.002)):
        assert f"sponge_{name}_seconds_count 1.0" in lines
        assert f"sponge_{name}_seconds_sum {seconds}" in lines
