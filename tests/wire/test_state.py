"""The state of a proxy: pairs of encoding and decoding, older and newer proxies, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.errors import WireError
from knative_sponge.wire.state import (
    BatchState,
    CoresState,
    ProxyState,
    QueueState,
    decode_state,
    encode_state,
)

cores = st.floats(1e-3, 1e6)
maybe = st.none() | cores
amount = st.floats(0, 1e12)
count = st.integers(0, 2**53)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
states = st.builds(
    ProxyState,
    version=st.text(),
    settings=st.dictionaries(st.text(), st.text(), max_size=3),
    cores=st.builds(CoresState, now=cores, coming=maybe, want=cores, max=maybe, reach=maybe),
    queue=st.builds(QueueState, count, count, count, st.none() | st.floats(-1e9, 1e9)),
    running=st.lists(st.builds(BatchState, count, count, amount), max_size=3).map(tuple),
    rate=amount,
    model=st.dictionaries(st.text(), values, max_size=3),
)
STATE = ProxyState(
    version="1.2",
    settings={"slo": "500ms"},
    cores=CoresState(now=0.8, want=0.9, max=2.0, reach=2.0),
    queue=QueueState(1, 2, 0, 0.1),
    running=(BatchState(rows=1, requests=1, for_s=0.01),),
    rate=10.0,
    model={"version": 1},
)
TEXT = (
    b'{"version":"1.2","settings":{"slo":"500ms"},'
    b'"cores":{"now":0.8,"coming":null,"want":0.9,"max":2.0,"reach":2.0},'
    b'"queue":{"requests":1,"rows":2,"late":0,"slack_s":0.1},'
    b'"running":[{"rows":1,"requests":1,"for_s":0.01}],"rate":10.0,"model":{"version":1}}'
)


@given(states)
def test_what_was_written_is_read_as_it_was(state: ProxyState) -> None:
    assert decode_state(encode_state(state)) == state


def test_a_state_has_these_bytes() -> None:
    assert encode_state(STATE) == TEXT
    assert decode_state(TEXT) == STATE


def test_a_proxy_that_says_only_what_it_must_is_understood() -> None:
    least = b'{"cores":{"now":1,"want":2},"model":{}}'
    assert decode_state(least) == ProxyState(cores=CoresState(now=1.0, want=2.0), model={})


def test_keys_of_a_later_proxy_are_passed_over() -> None:
    later = TEXT.replace(b'"now"', b'"news":1,"now"')[:-1] + b',"news":[{}]}'
    assert decode_state(later) == STATE


@pytest.mark.parametrize(
    "changed",
    [
        {"model": None}, {"model": []}, {"cores": None}, {"cores": {}}, {"cores": {"now": 1}}, {"cores": {"want": 1}},
        {"cores": {"now": 0, "want": 1}}, {"cores": {"now": 1, "want": "2"}}, {"cores": {"now": 1, "want": True}},
        {"cores": {"now": 1, "want": 2, "reach": -1}}, {"rate": -1}, {"rate": None}, {"rate": 1e13},
        {"queue": {"rows": -1}}, {"running": 1}, {"running": [{"rows": 1}]}, {"settings": {"slo": 1}}, {"version": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_no_state_and_named(changed: dict[str, Any]) -> None:
    (name,) = changed
    with pytest.raises(WireError, match=rf"not a state.*\$\.{name}"):
        decode_state(json.dumps(json.loads(TEXT) | changed).encode())


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", TEXT[:-1], b'{"model":' + b"[" * 60_000, b'{"version":"\xff"}']
)
def test_what_is_no_object_is_no_state(text: bytes) -> None:
    with pytest.raises(WireError, match="not a state"):
        decode_state(text)
