"""Whatever shares a group may share a call: requests that differ anywhere never change each other's answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable
from math import prod
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.codec.base import Part, RequestHead
from knative_sponge.codec.v2.codec import V2Codec
from knative_sponge.errors import BadRequest
from tests.codec.servers import V2Server, read_v2
from tests.codec.tokens import Number, nest, write

CODEC = V2Codec()
CHOICES: dict[str, tuple[Any, ...]] = {
    "target": (b"/v2/models/m/infer", b"/v2/models/n/infer"),
    "header": ((b"x-tenant", b"a"), (b"x-tenant", b"b"), (b"x-request-id", b"1")),
    "names": (("x",), ("x", "y"), ("y", "x")),
    "datatype": ("FP32", "INT64"),
    "trailing": ((), (2,), (1, 2), (2, 1)),
    "form": ("flat", "nested"),
    "parameters": (None, {"a": Number("1.0")}, {"a": Number("1.00")}, {"sequence_id": Number("1")}),
    "outputs": (None, [{"name": "sum"}], [{"name": "label"}]),
    "model": (None, "m"),
}


def request(rng: random.Random, chosen: dict[str, Any]) -> tuple[RequestHead, bytes]:
    rows = rng.randint(1, 3)
    shape = (rows, *chosen["trailing"])
    inputs = []
    for name in chosen["names"]:
        data: Any = [Number(rng.choice(("1", "1.0", "2"))) for _ in range(prod(shape))]
        if chosen["form"] == "nested":
            data = nest(data, shape)
        inputs.append({"name": name, "shape": list(shape), "datatype": chosen["datatype"], "data": data})
    body: dict[str, Any] = {"inputs": inputs, "id": str(rng.random())}
    for key in ("parameters", "outputs", "model"):
        if chosen[key] is not None:
            body[key] = chosen[key]
    head = RequestHead("POST", chosen["target"], [(b"content-type", b"application/json"), chosen["header"]])
    return head, write(body).encode()


@settings(max_examples=500)
@given(st.lists(st.sampled_from(sorted(CHOICES)), max_size=2, unique=True), st.integers(0, 2**32))
def test_requests_that_share_a_group_never_change_each_others_answers(differing: list[str], seed: int) -> None:
    rng = random.Random(seed)
    base = {key: rng.choice(values) for key, values in CHOICES.items()}
    groups: dict[Hashable, list[Part]] = defaultdict(list)
    for _ in range(6):
        chosen = {**base, **{key: rng.choice(CHOICES[key]) for key in differing}}
        part = CODEC.parse(*request(rng, chosen))
        groups[part.group].append(part)
    for parts in groups.values():
        server = V2Server()
        call = CODEC.merge(parts)
        for part, share in zip(parts, CODEC.split(parts, server(call)), strict=True):
            assert call.target == part.head.target
            assert [pair for pair in call.headers if pair[0] == b"x-tenant"] == [
                pair for pair in part.head.headers if pair[0] == b"x-tenant"
            ]
            assert read_v2(share)[0] == read_v2(server(CODEC.merge([part])))[0]


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_a_shape_and_data_that_disagree_are_never_merged(seed: int) -> None:
    """Either refused or alone: in a batch they would shift the rows of others."""
    rng = random.Random(seed)
    shape = [rng.randint(1, 3) for _ in range(rng.randint(1, 3))]
    actual = [rng.randint(0, 3) for _ in range(rng.randint(1, 3))]
    data: Any = nest([Number("1")] * prod(actual), actual)
    if rng.random() < 0.3:
        data = [Number("1")] * prod(actual)
    body = {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}]}
    head = RequestHead("POST", b"/v2/models/m/infer", ())
    text = write(body, rng).encode()
    fits = data in ([Number("1")] * prod(shape), nest([Number("1")] * prod(shape), shape))
    try:
        merges = CODEC.parse(head, text).group == CODEC.parse(head, text).group
    except BadRequest:
        merges = False
    assert merges is fits
