"""The guesses by which work leaves the event loop: small for what is ordinary, never far too low for what is dear."""

from __future__ import annotations

from dataclasses import replace

import pytest

from knative_sponge.codec.base import Answer, RequestHead
from knative_sponge.codec.cost import merge_s, parse_s, split_s
from knative_sponge.codec.v1 import V1Codec
from tests.hostile.dear import cost_of
from tests.hostile.test_bodies import REQUESTS

HEAD = RequestHead("POST", b"/v1/models/m:predict", [(b"content-type", b"application/json")])
LONG_S = 0.02


def framed(json: bytes) -> RequestHead:
    return RequestHead("POST", b"/v2/models/m/infer", [(b"inference-header-content-length", b"%d" % len(json))])


def test_what_is_small_is_guessed_to_take_no_time() -> None:
    assert parse_s(HEAD, b'""' * 32 * 1024) == 0.0


def test_an_ordinary_image_stays_on_the_loop_and_a_giant_one_does_not() -> None:
    assert parse_s(HEAD, b'{"instances":[[' + b"0.123456," * 100_000 + b"1]]}") < LONG_S
    assert parse_s(HEAD, b'{"instances":[[' + b"0.123456," * 1_000_000 + b"1]]}") > LONG_S


def test_strings_count_for_more_than_their_bytes() -> None:
    assert parse_s(HEAD, b'"",' * 50_000) > LONG_S
    assert parse_s(HEAD, b'"' + b"a" * 150_000 + b'"') < LONG_S


def test_binary_tensors_cost_little_unless_each_element_has_a_length() -> None:
    json = b'{"inputs":[{"datatype":"FP32"}]}'
    assert parse_s(framed(json), json + b'"' * 10_000_000) < LONG_S
    json = b'{"inputs":[{"datatype":"BYTES"}]}'
    assert parse_s(framed(json), json + b"\0" * 10_000_000) > LONG_S


@pytest.mark.parametrize("length", [b"", b"-1", b"x", b"9" * 5000])
def test_a_length_that_is_none_is_no_reason_to_guess_low(length: bytes) -> None:
    head = RequestHead("POST", b"/v2/models/m/infer", [(b"inference-header-content-length", length)])
    assert parse_s(head, b'"",' * 50_000) > LONG_S


def test_a_single_part_is_neither_merged_nor_split() -> None:
    part = V1Codec().parse(HEAD, b'{"instances":["' + b"a" * 30_000_000 + b'"]}')
    answer = Answer(200, [], b'"",' * 100_000)
    assert (merge_s([part]), split_s([part], answer)) == (0.0, 0.0)
    assert merge_s([part, part]) > LONG_S
    assert split_s([part, part], answer) > LONG_S


def test_many_outputs_for_each_of_many_parts_cost_time_however_short_the_answer_is() -> None:
    part = V1Codec().parse(HEAD, b'{"instances":[1]}')
    assert split_s([part] * 1000, Answer(200, [], b'{"shape":[1]}' * 50)) > LONG_S


@pytest.mark.parametrize("name", REQUESTS)
def test_no_giant_takes_far_longer_than_guessed(name: str) -> None:
    request = REQUESTS[name]
    body = request.body()
    head = RequestHead("POST", request.target, request.headers)
    held = replace(request, body=lambda: body)
    assert cost_of(held.parse).cpu_s < 5 * parse_s(head, body) + 0.1
