"""Other spellings of an inference call's path: whoever uses one waits in the queue like everybody, and shares no call."""

from __future__ import annotations

import time

import pytest

from knative_sponge.codec.base import RequestHead
from knative_sponge.codec.select import codec_for
from tests.proxy.harness import answering, model_server, ok, on_loop, proxy
from tests.proxy.wire import client

BODY = b'{"instances":[1]}'
TENSOR = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
V1 = [
    b"/v1/models/m:%70redict",
    b"/v1/models/m%3Apredict",
    b"/%76%31/models/m:predict",
    b"//v1/models/m:predict",
    b"/v1//models///m:predict",
    b"/./v1/models/m:predict",
    b"/x/../v1/models/m:predict",
    b"/x/%2e%2E/v1/models/m:predict",
    b"/../v1/models/m:predict",
    b"/v1/models/m:predict/",
    b"/v1/models/m:predict/.",
    b"/v1/models/m:predict;a=b",
    b"/v1;a=b/models/m:predict",
    b"/v1%2Fmodels%2fm:predict",
    b"/v1%5Cmodels%5cm:predict",
    b"/V1/Models/m:PREDICT",
    b"/v1/models/m:%2570redict",
    b"/v1/models/m:predict%00x",
    b"/v1/models/a%2Fb:%70redict",
    b"/v1/models/a%3Ab:%70redict",
    b"/v1/models/m/versions/2:%70redict?q=/../../x",
]
V2 = [
    b"/v2/models/m/%69nfer",
    b"//v2/models/m/infer",
    b"/v2/models/m/infer/",
    b"/v2/models/m/./infer",
    b"/v2/models/m/versions/3/x/../infer",
    b"/v2/models/m/infer;a",
    b"/v2/models/a%2Fb/%69nfer",
    b"/v2/models/m%2Finfer",
]
OTHERS = [
    b"/",
    b"/%76",
    b"/v1/models/m",
    b"/v1/models/m:predict/../x",
    b"/v1/models/m:predict/metadata",
    b"/x?/v1/models/m:predict",
    b"/x%3F/v1/models/m:predictx",
    b"/v2/models/m/inferx",
    b"/v2/models//infer",
]


@pytest.mark.parametrize("target", V1 + V2, ids=repr)
def test_every_spelling_that_some_server_understands_is_for_the_queue(target: bytes) -> None:
    codec = codec_for("auto")
    head = RequestHead("POST", target, ())
    assert codec.wants(head)
    part = codec.parse(head, BODY if target in V1 else TENSOR)
    plain = codec.parse(RequestHead("POST", b"/v1/models/m:predict", ()), BODY)
    assert part.group not in (plain.group, codec.parse(RequestHead("POST", b"/v2/models/m/infer", ()), TENSOR).group)
    assert codec.merge([part]).target == target, "what is sent on is what came"


@pytest.mark.parametrize("target", OTHERS, ids=repr)
def test_what_no_server_takes_for_an_inference_call_passes_through(target: bytes) -> None:
    assert not codec_for("auto").wants(RequestHead("POST", target, ()))


@pytest.mark.parametrize("piece", [b"/..", b"%2e", b"/;", b"%25", b"//", b"\\", b"%00", b":predict", b"/versions/"])
def test_a_path_of_any_length_is_read_in_a_few_milliseconds(piece: bytes) -> None:
    for size in (1000, 2**16, 2**20):
        head = RequestHead("POST", b"/v1/models/" + piece * (size // len(piece)), ())
        began_s = time.process_time()
        codec_for("auto").wants(head)
        assert time.process_time() - began_s < 0.05


def test_an_odd_path_that_is_too_long_to_be_read_in_every_way_waits_too() -> None:
    assert codec_for("auto").wants(RequestHead("POST", b"/v1/models/" + b"x" * 2000 + b":%70redict", ()))
    assert not codec_for("auto").wants(RequestHead("POST", b"/v1/models/" + b"x" * 2000 + b":explain", ()))


@on_loop
async def test_no_spelling_of_the_admin_ports_paths_is_ours_on_the_data_port() -> None:
    targets = [
        b"/wait-for-drain", b"/%77ait-for-drain", b"//wait-for-drain", b"/x/../wait-for-drain", b"/sponge/v1/cores",
        b"/sponge/v1/%64emand", b"/sponge//v1/state", b"/metrics", b"/healthz",
    ]  # fmt: skip
    async with model_server(answering(ok(b"app"))) as fake, proxy(fake) as port, client(port) as one:
        for target in targets:
            assert (await one.get(target)).body == b"app"
        assert [head.split(b" ")[1] for head in fake.seen] == targets
