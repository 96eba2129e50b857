"""Which codec serves which protocol, and what `auto` and `none` take."""

from __future__ import annotations

import pytest

from knative_sponge.codec.base import Answer, RequestHead
from knative_sponge.codec.select import codec_for
from knative_sponge.errors import SettingError
from knative_sponge.settings import ProtocolName, ServingSettings

V2, V1 = b"/v2/models/m/infer", b"/v1/models/m:predict"
TENSOR = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'


def post(target: bytes, *headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("POST", target, headers)


@pytest.mark.parametrize("name", ProtocolName)
def test_every_protocol_that_can_be_set_has_a_codec_of_its_name(name: ProtocolName) -> None:
    assert codec_for(name).name == name


def test_a_protocol_without_codec_is_refused_with_what_is_allowed() -> None:
    allowed = "auto, v2, v1, cloudevents, json-array, none"
    with pytest.raises(SettingError) as refused:
        codec_for("openai")
    assert str(refused.value) == f"protocol: 'openai' is not allowed; expected one of {allowed}"
    with pytest.raises(SettingError) as refused:
        ServingSettings.from_env({"SPONGE_PROTOCOL": "openai"})
    assert str(refused.value) == f"SPONGE_PROTOCOL: 'openai' is not allowed; expected one of {allowed}"


@pytest.mark.parametrize(
    ("target", "wanted"),
    [(V2, True), (V1, True), (b"/v1/models/m/versions/2:predict", True), (b"/v1/models/m/labels/a:predict?x", True),
     (b"/", False), (b"/predict", False), (b"/v1/models/m:explain", False), (b"/v1/models/m", False),
     (b"/v1/chat/completions", False)],
)  # fmt: skip
def test_auto_takes_inference_calls_only(target: bytes, wanted: bool) -> None:
    codec = codec_for(ProtocolName.AUTO)
    assert codec.wants(post(target)) is wanted
    assert not codec.wants(RequestHead("GET", target, ()))


def test_auto_merges_each_protocol_by_its_own_rules() -> None:
    codec = codec_for(ProtocolName.AUTO)
    v2 = [codec.parse(post(V2), TENSOR) for _ in range(2)]
    v1 = [codec.parse(post(V1), b'{"instances":[1]}') for _ in range(2)]
    assert v2[0].group == v2[1].group != v1[0].group == v1[1].group
    assert codec.merge(v2).body.count(b'"data":[1,1]') == 1
    assert codec.merge(v1).body == b'{"instances":[1,1]}'
    first, second = codec.split(v1, Answer(200, (), b'{"predictions":["a","b"]}'))
    assert (first.body, second.body) == (b'{"predictions":["a"]}', b'{"predictions":["b"]}')


def test_auto_never_merges_bare_arrays() -> None:
    codec = codec_for(ProtocolName.AUTO)
    for target in (b"/", V1, V2):
        one, other = (codec.parse(post(target), b"[[1]]") for _ in range(2))
        assert one.group != other.group


def test_the_same_body_to_different_protocols_is_never_one_group() -> None:
    groups = {
        codec_for(name).parse(post(b"/"), b"[1]").group
        for name in ("json-array", "none", "auto", "v1", "v2", "cloudevents")
    }
    assert len(groups) == 6


@pytest.mark.parametrize(
    ("method", "headers", "wanted"),
    [("POST", (), True), ("PUT", (), True), ("PATCH", (), True), ("GET", (), False), ("HEAD", (), False),
     ("OPTIONS", (), False), ("DELETE", (), False), ("POST", ((b"content-type", b"application/grpc+proto"),), False)],
)  # fmt: skip
def test_none_queues_work_and_lets_the_rest_through(
    method: str, headers: tuple[tuple[bytes, bytes], ...], wanted: bool
) -> None:
    assert codec_for(ProtocolName.NONE).wants(RequestHead(method, b"/x", headers)) is wanted


def test_none_sends_every_request_alone_and_untouched() -> None:
    codec = codec_for(ProtocolName.NONE)
    head = post(V2, (b"x-request-id", b"1"))
    one, other = codec.parse(head, TENSOR), codec.parse(head, TENSOR)
    assert one.group != other.group
    assert one.rows == 1
    call = codec.merge([one])
    assert (call.method, call.target, call.headers, call.body) == ("POST", V2, head.headers, TENSOR)
    answer = Answer(200, (), b"x")
    assert codec.split([one], answer) == [answer]
    with pytest.raises(ValueError, match="too many"):
        codec.merge([one, other])
