from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocr_server.detector import Detection
from ocr_server.regions import MAX_BOXES
from ocr_server.v2 import CallError, parse
from ocr_server.v2 import answer as answer_of


def body(images: list[bytes], *, tensor: dict[str, Any] | None = None, **call: Any) -> tuple[bytes, str]:
    tail = b"".join(len(image).to_bytes(4, "little") + image for image in images)
    one = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [one | (tensor or {})], **call}).encode()
    return head + tail, str(len(head))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_images_come_out_as_they_went_in(images: list[bytes]) -> None:
    assert parse(*body(images)).images == images


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_a_body_cut_short_is_refused(images: list[bytes], data: st.DataObject) -> None:
    whole, length = body(images)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CallError):
        parse(whole[:cut], length)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        ({"shape": [2]}, "inside element 1 of 2"),
        ({"shape": [0]}, "shape"),
        ({"shape": [1, 1]}, "shape"),
        ({"shape": [True]}, "shape"),
        ({"shape": None}, "shape"),
        ({"datatype": "FP32"}, "BYTES"),
        ({"name": "picture"}, "'image'"),
        ({"parameters": {}}, "binary tensor extension"),
        ({"parameters": {"binary_data_size": 3}}, "follow the JSON"),
    ],
)
def test_a_tensor_that_is_not_a_list_of_files_is_refused(tensor: dict[str, Any], says: str) -> None:
    with pytest.raises(CallError, match=says):
        parse(*body([b"abc"], tensor=tensor))


def test_bytes_after_the_last_element_are_refused() -> None:
    with pytest.raises(CallError, match="left after 1"):
        parse(*body([b"abc", b"d"], tensor={"shape": [1]}))


@pytest.mark.parametrize("text", [b"", b"[]", b"nonsense", b"{}", b'{"inputs": []}', b'{"inputs": [1]}', b"\xff"])
def test_what_is_not_a_call_is_refused(text: bytes) -> None:
    with pytest.raises(CallError):
        parse(text, None)


@pytest.mark.parametrize("length", ["-1", "9999", "x", "", "²"])
def test_a_length_header_that_is_no_length_is_refused(length: str) -> None:
    with pytest.raises(CallError, match="length"):
        parse(body([b"a"])[0], length)


@pytest.mark.parametrize("outputs", [1, [1], [{"name": "words"}], [{"name": "boxes"}, {"name": "boxes"}]])
def test_outputs_that_do_not_exist_are_refused(outputs: Any) -> None:
    with pytest.raises(CallError, match="outputs"):
        parse(*body([b"a"], outputs=outputs))


FOUND = [Detection(0.25, np.full((MAX_BOXES, 5), row, np.float32)) for row in (1, 2)]


def answer(**call: Any) -> tuple[dict[str, Any], bytes, int | None]:
    text, length = answer_of(parse(*body([b"a", b"b"], **call)), FOUND)
    return json.loads(text[:length]), text[length:] if length is not None else b"", length


def test_an_answer_is_json_unless_binary_was_asked_for() -> None:
    head, tail, length = answer(id="seven")
    assert (length, tail, head["id"], head["model_name"]) == (None, b"", "seven", "ocr")
    share, boxes = head["outputs"]
    assert share == {"name": "text_share", "datatype": "FP32", "shape": [2, 1], "data": [0.25, 0.25]}
    assert boxes["shape"] == [2, MAX_BOXES, 5]
    assert boxes["data"] == [1.0] * MAX_BOXES * 5 + [2.0] * MAX_BOXES * 5


def test_binary_outputs_follow_the_json_in_order() -> None:
    head, tail, _ = answer(parameters={"binary_data_output": True})
    assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [8, 2 * MAX_BOXES * 5 * 4]
    assert all("data" not in output for output in head["outputs"])
    assert np.frombuffer(tail[:8], "<f4").tolist() == [0.25, 0.25]
    assert np.array_equal(np.frombuffer(tail[8:], "<f4").reshape(2, MAX_BOXES, 5), [one.boxes for one in FOUND])


def test_each_output_may_choose_for_itself() -> None:
    outputs = [{"name": "boxes"}, {"name": "text_share", "parameters": {"binary_data": False}}]
    head, tail, _ = answer(parameters={"binary_data_output": True}, outputs=outputs)
    assert [output["name"] for output in head["outputs"]] == ["boxes", "text_share"]
    assert head["outputs"][1]["data"] == [0.25, 0.25]
    assert len(tail) == 2 * MAX_BOXES * 5 * 4
