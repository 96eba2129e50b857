"""What the codecs cost: parse, merge and split of 16 requests, beside a merge by the standard library's json.

`python -m benchmarks.codec`. Medians of repeated runs in one process; other load on the machine disturbs them. JSON: 124 KB
of FP32 each, with answers of 1000 scores per row and answers as large as the requests. Binary: 150 KB each.
"""

from __future__ import annotations

import json
import random
import statistics
import struct
import time
from collections.abc import Callable

from knative_sponge.codec.base import Answer, Codec, Part, RequestHead
from knative_sponge.codec.v1 import V1Codec
from knative_sponge.codec.v2.codec import V2Codec

REQUESTS = 16
V2_TARGET = b"/v2/models/m/infer"
JSON_BYTES, BINARY_BYTES = 124_000, 150_000
HEADERS = [
    (b"host", b"model.default.example.com"), (b"content-type", b"application/json"), (b"user-agent", b"bench"),
    (b"accept", b"*/*"), (b"accept-encoding", b"gzip"), (b"x-request-id", b"5f8c"), (b"x-forwarded-for", b"10.0.0.1"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
]  # fmt: skip


def median_ms(run: Callable[[], object], repeats: int = 60) -> float:
    """Median milliseconds of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def numbers(count: int, rng: random.Random) -> list[str]:
    """FP32 numbers as a client writes them: the shortest form that reads back equal."""
    return [f"{struct.unpack('f', struct.pack('f', rng.gauss(0, 1)))[0]:.8g}" for _ in range(count)]


def json_request(index: int, target_bytes: int, rng: random.Random) -> bytes:
    """A V2 request of one row, about `target_bytes` long."""
    columns = target_bytes * 1000 // len(",".join(numbers(1000, random.Random(1))))
    data = ",".join(numbers(columns, rng))
    inputs = f'[{{"name":"x","shape":[1,{columns}],"datatype":"FP32","data":[{data}]}}]'
    return f'{{"id":"{index}","inputs":{inputs}}}'.encode()


def json_answer(columns: int, rng: random.Random) -> bytes:
    """A V2 answer of `columns` numbers per request."""
    data = ",".join(numbers(REQUESTS * columns, rng))
    outputs = f'[{{"name":"y","datatype":"FP32","shape":[{REQUESTS},{columns}],"data":[{data}]}}]'
    return f'{{"model_name":"m","outputs":{outputs}}}'.encode()


def peer_merge(bodies: list[bytes]) -> bytes:
    """The merge of a proxy that decodes and encodes everything."""
    requests = [json.loads(body) for body in bodies]
    merged = requests[0]["inputs"][0]
    merged["shape"][0] = len(requests)
    merged["data"] = [number for request in requests for number in request["inputs"][0]["data"]]
    return json.dumps({"inputs": [merged]}).encode()


def peer_split(body: bytes) -> list[bytes]:
    """The split of such a proxy."""
    answer = json.loads(body)
    output = answer["outputs"][0]
    columns = output["shape"][1]
    shares = []
    for row in range(REQUESTS):
        own = {**output, "shape": [1, columns], "data": output["data"][row * columns : (row + 1) * columns]}
        shares.append(json.dumps({**answer, "id": str(row), "outputs": [own]}).encode())
    return shares


def report(title: str, codec: Codec, parts: list[Part], answer: Answer) -> float:
    """Print parse per request, merge and split of all; return merge + split, milliseconds."""
    parse = median_ms(lambda: codec.parse(parts[0].head, parts[0].body))
    merge = median_ms(lambda: codec.merge(parts))
    split = median_ms(lambda: codec.split(parts, answer))
    print(
        f"{title:<34} parse {parse:7.3f} ms each   merge {merge:7.3f} + split {split:7.3f} = {merge + split:7.3f} ms "
        f"(of {sum(len(part.body) for part in parts) / 1e3:.0f} KB and {len(answer.body) / 1e3:.0f} KB)"
    )
    return merge + split


def bench_json() -> None:
    """V2 JSON, small and large answers, beside json.loads and json.dumps."""
    rng = random.Random(7)
    codec = V2Codec()
    head = RequestHead("POST", V2_TARGET, HEADERS)
    bodies = [json_request(index, JSON_BYTES, rng) for index in range(REQUESTS)]
    parts = [codec.parse(head, body) for body in bodies]
    assert len({part.group for part in parts}) == 1
    width = parts[0].detail.inputs[0].trailing[0]
    parse = median_ms(lambda: [codec.parse(head, body) for body in bodies])
    for title, columns in (("V2 JSON, 1000 scores a row", 1000), ("V2 JSON, answers like requests", width)):
        answer = json_answer(columns, rng)
        ours = report(title, codec, parts, Answer(200, [], answer))
        merge = median_ms(lambda: peer_merge(bodies), 5)
        split = median_ms(lambda answer=answer: peer_split(answer), 5)  # type: ignore[misc]
        print(
            f"{'  the same by json.loads/dumps':<34} parse + merge {merge:.1f} + split {split:.1f} = {merge + split:.1f} ms; "
            f"ours with parsing all {ours + parse:.1f} ms: {(merge + split) / (ours + parse):.1f} times less"
        )
    small = b'{"id":"1","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}'
    small_parts = [codec.parse(head, small) for _ in range(REQUESTS)]
    report("V2 JSON, 4 numbers each", codec, small_parts, Answer(200, [], json_answer(3, rng)))


def bench_binary() -> None:
    """V2 binary tensors, answers as large as the requests."""
    rng = random.Random(7)
    codec = V2Codec()
    columns = BINARY_BYTES // 4
    tensor = {"name": "x", "shape": [1, columns], "datatype": "FP32", "parameters": {"binary_data_size": 4 * columns}}
    request = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    head = RequestHead("POST", V2_TARGET, [*HEADERS, (b"inference-header-content-length", b"%d" % len(request))])
    parts = [codec.parse(head, request + rng.randbytes(4 * columns)) for _ in range(REQUESTS)]
    tensor |= {"shape": [REQUESTS, columns], "parameters": {"binary_data_size": REQUESTS * 4 * columns}}
    answer = json.dumps({"model_name": "m", "outputs": [tensor]}).encode()
    framing = [(b"inference-header-content-length", b"%d" % len(answer))]
    body = answer + rng.randbytes(REQUESTS * 4 * columns)
    report("V2 binary, answers like requests", codec, parts, Answer(200, framing, body))


def bench_v1() -> None:
    """V1 with nested rows, answers of 1000 scores."""
    rng = random.Random(7)
    codec = V1Codec()
    head = RequestHead("POST", b"/v1/models/m:predict", HEADERS)
    values = numbers(JSON_BYTES // 11, rng)
    row = ",".join("[" + ",".join(values[at : at + 64]) + "]" for at in range(0, len(values), 64))
    parts = [codec.parse(head, f'{{"instances":[[{row}]]}}'.encode()) for _ in range(REQUESTS)]
    scores = ",".join("[" + ",".join(numbers(1000, rng)) + "]" for _ in range(REQUESTS))
    report("V1 nested, 1000 scores a row", codec, parts, Answer(200, [], f'{{"predictions":[{scores}]}}'.encode()))


if __name__ == "__main__":
    bench_json()
    bench_binary()
    bench_v1()
