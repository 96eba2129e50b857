"""Sizes that a proxy is told: pairs of encoding and decoding, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from knative_sponge.errors import WireError
from knative_sponge.wire.cores import CoresMessage, Phase, decode_cores, encode_cores

sizes = st.floats(0.001, 4096)


@given(st.builds(CoresMessage, sizes, st.sampled_from(Phase), st.just(UNSET) | sizes))
def test_what_was_written_is_read_as_it_was(message: CoresMessage) -> None:
    assert decode_cores(encode_cores(message)) == message


def test_the_messages_have_these_bytes() -> None:
    patched, actuated = CoresMessage(1.2, Phase.PATCHED, 4.0), CoresMessage(1.2, Phase.ACTUATED)
    assert encode_cores(patched) == b'{"cores":1.2,"phase":"patched","reach":4.0}'
    assert encode_cores(actuated) == b'{"cores":1.2,"phase":"actuated"}'


def test_keys_of_a_later_controller_are_passed_over() -> None:
    text = b'{"cores": 2, "phase": "patched", "memory": {"bytes": 1}}'
    assert decode_cores(text) == CoresMessage(2.0, Phase.PATCHED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cores", value) for value in (0, 0.0009, -1, 4097, "1", None, True)),
        *(("phase", value) for value in ("soon", "", 1, None, "PATCHED")),
        *(("reach", value) for value in (0, -1, 4097, "far", None)),
    ],
)
def test_a_size_that_cannot_be_is_refused_and_named(name: str, value: Any) -> None:
    text = json.dumps({"cores": 1.0, "phase": "patched", "reach": 2.0} | {name: value}).encode()
    with pytest.raises(WireError, match=rf"not a size.*\$\.{name}"):
        decode_cores(text)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"5", b"{}", b'{"cores":1}', b'{"phase":"patched"}', b'{"cores":NaN,"phase":"patched"}']
)
def test_what_is_no_size_is_refused(text: bytes) -> None:
    with pytest.raises(WireError, match="not a size"):
        decode_cores(text)
