"""Demand lines: pairs of encoding and decoding, older and newer proxies, and what cannot be is no line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from knative_sponge.errors import WireError
from knative_sponge.wire.demand import DemandLine, decode_demand, encode_demand

CURVE = (0.031, 0.0002, 0.004, 0.001)
LINE = DemandLine(
    seq=7,
    cores=0.8,
    want=1.2,
    rate=14.2,
    slack=0.31,
    queued=3,
    running=1,
    idle_s=0.0,
    met=1200,
    missed=3,
    max_batch=32,
    params=CURVE,
    cost=CURVE,
    samples=412,
    curve=((0.4, 3.1), (0.8, 0.4), (1.2, 0.0)),
)
TEXT = (
    b'{"v":1,"seq":7,"cores":0.8,"coming":null,"want":1.2,"rate":14.2,"rows":1.0,"slack":0.31,"queued":3,"running":1,'
    b'"idle_s":0.0,"met":1200,"missed":3,"max_batch":32,"params":[0.031,0.0002,0.004,0.001],'
    b'"cost":[0.031,0.0002,0.004,0.001],"samples":412,"curve":[[0.4,3.1],[0.8,0.4],[1.2,0.0]]}\n'
)

cores = st.floats(1e-3, 1e6)
amount = st.floats(0, 1e12)
count = st.integers(0, 2**53)
four = st.none() | st.tuples(amount, amount, amount, amount)
lines = st.builds(
    DemandLine,
    seq=count, cores=cores, coming=st.none() | cores, want=cores, rate=amount, rows=amount,
    slack=st.none() | st.floats(-1e12, 1e12), queued=count, running=count,
    idle_s=st.none() | amount, met=count, missed=count, max_batch=count, params=four, cost=four, samples=count,
    curve=st.lists(st.tuples(st.floats(0, 1e6), amount), max_size=20).map(tuple),
)  # fmt: skip


@given(lines)
def test_what_was_written_is_read_as_it_was(line: DemandLine) -> None:
    text = encode_demand(line)
    assert text.index(b"\n") == len(text) - 1
    assert decode_demand(text) == line
    assert json.loads(text)["v"] == 1


def test_a_line_has_these_bytes() -> None:
    assert encode_demand(LINE) == TEXT
    assert decode_demand(TEXT) == LINE


def test_the_documents_show_this_very_line() -> None:
    page = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
    shown = re.search(r'\{"v":1,"seq":.*?"curve":.*?\]\]\}', page, re.DOTALL)
    assert shown is not None
    assert re.sub(r"\s", "", shown[0]).encode() + b"\n" == TEXT


def test_a_proxy_that_says_only_what_it_must_is_understood() -> None:
    assert decode_demand(b'{"cores":1,"want":2}') == DemandLine(cores=1.0, want=2.0)


def test_keys_of_a_later_proxy_are_passed_over() -> None:
    assert decode_demand(TEXT[:-2] + b',"news":{"x":[1,null]}}') == LINE


def test_another_version_is_no_line() -> None:
    with pytest.raises(WireError, match=r"not a demand.*\$\.v"):
        decode_demand(TEXT.replace(b'"v":1', b'"v":2'))


@given(st.integers(0, len(TEXT) - 2))
def test_a_line_that_was_cut_short_is_no_line(end: int) -> None:
    with pytest.raises(WireError, match="not a demand"):
        decode_demand(TEXT[:end])


@pytest.mark.parametrize("name", ["cores", "want"])
def test_a_line_without_a_size_or_a_want_is_no_line(name: str) -> None:
    said = json.loads(TEXT)
    del said[name]
    with pytest.raises(WireError, match=name):
        decode_demand(json.dumps(said).encode())


COUNTS = ("queued", "running", "met", "missed", "max_batch", "samples", "seq")
IMPOSSIBLE: list[tuple[str, Any]] = [
    *((name, value) for name in ("cores", "want") for value in (0, -1, 1e7, "1", True, None)),
    *((name, value) for name in ("rate", "rows") for value in (-0.1, 1e13, "1", None)),
    *((name, value) for name in ("coming", "idle_s") for value in (-0.1, 1e13, "1")),
    *((name, value) for name in COUNTS for value in (-1, 0.5, None)),
    *((name, value) for name in ("params", "cost") for value in ((1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, -4), 1)),
    ("slack", "soon"),
    *(("curve", value) for value in (((1,),), ((-1, 0),), ((1, -1),), ((1e7, 0),), ((1, 0),) * 257, None)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE, ids=lambda part: str(part)[:20])
def test_a_number_that_cannot_be_is_no_line_and_named(name: str, value: Any) -> None:
    with pytest.raises(WireError, match=rf"not a demand.*\$\.{name}"):
        decode_demand(json.dumps(json.loads(TEXT) | {name: value}).encode())


def test_every_number_has_a_case_above() -> None:
    assert {name for name, _ in IMPOSSIBLE} | {"v"} == {field.name for field in fields(DemandLine)}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "01", "1.", "0x1"])
@pytest.mark.parametrize("name", ["want", "slack"])
def test_what_is_no_number_of_json_is_no_line(name: str, number: str) -> None:
    with pytest.raises(WireError, match="not a demand"):
        decode_demand(f'{{"cores":1,"want":2,"{name}":{number}}}'.encode())


@pytest.mark.parametrize("text", [b"", b"hello", b"[1]", b"5", b"null", b"\xff", b"{}{}", b'{"x":' + b"[" * 60_000])
def test_what_is_no_object_is_no_line(text: bytes) -> None:
    with pytest.raises(WireError, match="not a demand"):
        decode_demand(text)
