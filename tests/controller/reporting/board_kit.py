"""Made-up rows of a cluster; test code only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from knative_sponge.controller.reporting.rows import NodeRow, PodRow, RevisionRow

CURVE = ((0.4, 6.0), (0.8, 2.0), (1.6, 0.0))

POD = PodRow(
    name="ocr-1",
    node="n1",
    cores=0.8,
    target=1.2,
    want=1.2,
    phase="patched",
    rate=14.25,
    queued=3,
    running=1,
    slack_s=0.24,
    met=1990,
    missed=10,
    news_s=0.4,
    curve=CURVE,
    params=(0.02, 0.004, 0.01, 0.002),
    samples=800,
)
REVISION = RevisionRow(
    namespace="shop",
    name="ocr-00001",
    service="ocr",
    slo_s=0.5,
    priority=5,
    scaling="vertical",
    max_batch=8,
    max_inflight=1,
    min_cores=0.1,
    max_cores=2.0,
    wanted_pods=1,
    why="wants 1.2 cores: 2 rows/s miss at 0.8",
    pods=(POD,),
)
NODE = NodeRow(name="n1", allocatable=4.0, reserved=1.5, divided=1.2, wanted=1.2, short=False)
SHORT = replace(NODE, divided=2.5, wanted=3.1, short=True)


def steady(**changes: Any) -> PodRow:
    """A pod that has what it wants."""
    return replace(POD, **{"cores": 1.2, "target": 1.2, "want": 1.2, "phase": "steady", **changes})


def of(*pods: PodRow, **changes: Any) -> RevisionRow:
    """The revision with these pods."""
    return replace(REVISION, pods=pods, **changes)


numbers = st.floats(0, 1e6)
words = st.text(max_size=8)
pods = st.builds(
    PodRow,
    name=words,
    node=words,
    cores=numbers,
    target=numbers,
    want=numbers,
    phase=words,
    pending=words,
    rate=numbers,
    queued=st.integers(0, 99),
    running=st.integers(0, 9),
    slack_s=st.none() | numbers,
    met=st.integers(0, 99),
    missed=st.integers(0, 99),
    news_s=st.none() | numbers,
    curve=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple),
    params=st.none() | st.tuples(numbers, numbers, numbers, numbers),
    cost=st.none() | st.tuples(numbers, numbers, numbers, numbers),
    samples=st.integers(0, 99),
)
revisions = st.builds(
    RevisionRow,
    namespace=words,
    name=words,
    service=words,
    slo_s=st.none() | numbers,
    priority=st.integers(0, 9),
    scaling=words,
    max_batch=st.integers(1, 64),
    max_inflight=st.integers(1, 4),
    min_cores=numbers,
    max_cores=st.none() | numbers,
    wanted_pods=st.integers(0, 9),
    why=words,
    pods=st.lists(pods, max_size=2).map(tuple),
)
nodes = st.builds(
    NodeRow,
    name=words,
    allocatable=numbers,
    reserved=numbers,
    divided=numbers,
    wanted=numbers,
    short=st.booleans(),
)
