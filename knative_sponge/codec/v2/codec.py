"""Open Inference Protocol V2: merge inference requests tensor by tensor, split answers by rows. Bytes in, bytes out.

Specification: Open Inference Protocol (REST) and its binary tensor data extension. The first dimension of every tensor
counts rows, so only models that batch along it may be served this way; an answer of other row counts is refused.

A request that is not known to merge is sent alone, byte for byte as received: stateful requests, requests with a priority
or timeout of their own, shared memory, inputs without rows or of different row counts, compressed bodies, repeated keys,
data whose form the shape does not explain. Only what no server can accept is refused: a body that is not JSON, and a
shape that contradicts its data.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from knative_sponge.codec.base import Answer, Call, Part, RequestHead
from knative_sponge.codec.headers import (
    JSON_LENGTH,
    call_headers,
    header,
    header_key,
    is_encoded,
    says_json,
    share_headers,
)
from knative_sponge.codec.json.text import JsonError, JsonText, check_repeated, json_fault, object_tail
from knative_sponge.codec.target import matches
from knative_sponge.codec.v2.input import NULL, BinaryTail, Input, merge_inputs, read_input, read_parameters
from knative_sponge.codec.v2.output import Pieces, Share, cut_output
from knative_sponge.errors import BadRequest, UpstreamBroken, shown

_PATH = re.compile(rb"/v2/models/[^/]+(?:/versions/[^/]+)?/infer", re.DOTALL)
_MOST_SHOWN = 40
_MOST_SHARES = 100_000
"""Outputs times requests of a merged call: each share is an object of its own."""
# Parameters that Triton and others apply to the whole call: with one of them a request cannot share a call.
_OWN_PARAMETERS = frozenset({"sequence_id", "sequence_start", "sequence_end", "priority", "timeout"})


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that can be merged.

    id: a JSON string as it stands, None when there is none. rest: members but id and inputs, as the end of an object.
    framed: whether a header says where its JSON ends.
    """

    id: bytes | None
    inputs: tuple[Input, ...]
    rest: bytes
    framed: bool


class V2Codec:
    """Codec of `POST /v2/models/<model>[/versions/<version>]/infer` (docs/design.md §3.1, protocol `v2`)."""

    name: str = "v2"

    def wants(self, head: RequestHead) -> bool:
        """Whether the request is an inference call, by method and path."""
        return head.method == "POST" and matches(_PATH, head.target)

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """Understand one request. Raises BadRequest for malformed JSON and for shapes that contradict their data."""
        alone = Part(1, object(), head, body)
        if is_encoded(head.headers):
            return alone
        length = header(head.headers, JSON_LENGTH)
        json_bytes = len(body)
        if length is not None:
            if not length.isdigit() or len(length) > 18 or int(length) > len(body):
                raise BadRequest(
                    f"inference-header-content-length is {shown(length.decode('latin-1'), _MOST_SHOWN)}; "
                    f"expected a whole number of at most {len(body)}, the length of the body"
                )
            json_bytes = int(length)
            if not json_bytes:
                return alone
        json = body[:json_bytes]
        tail = None if length is None else BinaryTail(memoryview(body)[json_bytes:])
        try:
            return _read(head, body, json, tail) or alone
        except JsonError:
            fault = json_fault(json)
            if fault is not None and (tail is not None or says_json(head)):
                raise BadRequest(f"the body is not JSON: {fault}") from None
            return alone

    def merge(self, parts: Sequence[Part]) -> Call:
        """One upstream call for parts of equal group, in order. A single part is sent byte for byte as received."""
        head = parts[0].head
        if len(parts) == 1:
            return Call(head.method, head.target, head.headers, parts[0].body)
        requests: list[InferRequest] = [part.detail for part in parts]
        pieces: Pieces = [b'{"inputs":[']
        binary: list[memoryview] = []
        for inputs in zip(*(request.inputs for request in requests), strict=True):
            json, data = merge_inputs(inputs)
            pieces += (*json, b",")
            binary += data
        pieces[-1] = b"]" + requests[0].rest
        json_bytes = sum(map(len, pieces))
        body = b"".join([*pieces, *binary])
        headers = call_headers(head.headers, len(body))
        if requests[0].framed:
            headers.append((JSON_LENGTH, b"%d" % json_bytes))
        return Call(head.method, head.target, headers, body)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """Each part's own answer, in order; a single part's is the answer itself.

        Every share has the answer's other members, outputs of its own rows, and the `id` of its request, if it had one.
        Raises UpstreamMismatch when the rows do not add up, UpstreamBroken when the answer is not of the protocol.
        """
        if len(parts) == 1:
            return [answer]
        if is_encoded(answer.headers):
            raise UpstreamBroken("the answer to a merged call is compressed although identity was asked")
        length = header(answer.headers, JSON_LENGTH)
        if length is not None and not (length.isdigit() and len(length) <= 18 and int(length) <= len(answer.body)):
            raise UpstreamBroken("the answer's inference-header-content-length does not fit its body")
        json_bytes = len(answer.body) if length is None else int(length)
        tail = BinaryTail(memoryview(answer.body)[json_bytes:])
        text = JsonText(answer.body[:json_bytes], lift=True)
        try:
            members = text.members(text.frame)
            if "outputs" not in members:
                raise JsonError("no outputs")
            outputs = text.objects(members.pop("outputs"))
            if len(outputs) * len(parts) > _MOST_SHARES:
                raise JsonError(f"{len(outputs)} outputs for each of {len(parts)} requests")
            members.pop("id", None)
            rows = [part.rows for part in parts]
            shares = [cut_output(text, output, tail, rows) for output in outputs]
            rest = {key: text.whole(value) for key, value in members.items()}
            check_repeated(rest, len(parts))
        except JsonError as error:
            raise UpstreamBroken(f"the answer to a merged call is not V2: {error}") from error
        if tail.left:
            raise UpstreamBroken(f"{tail.left} bytes of the answer belong to no output")
        headers = share_headers(answer.headers)
        return [
            _share(part, [share[index] for share in shares], rest, Answer(answer.status, headers, b""))
            for index, part in enumerate(parts)
        ]


def _read(head: RequestHead, body: bytes, json: bytes, tail: BinaryTail | None) -> Part | None:
    """The request as a part; None when it may be right but cannot be merged."""
    text = JsonText(json, lift=True)
    members = text.members(text.frame)
    text.check()
    if "inputs" not in members:
        return None
    inputs = [read_input(text, item, tail) for item in text.objects(members.pop("inputs"))]
    readable = [item for item in inputs if item is not None]
    if not readable or len(readable) != len(inputs) or (tail is not None and tail.left):
        return None
    rows = readable[0].rows
    if any(item.rows != rows for item in readable):
        return None
    own_id = members.pop("id", NULL)
    if own_id != NULL:
        text.string(own_id)
    rest = {key: text.whole(value) for key, value in members.items()}
    detail = InferRequest(None if own_id == NULL else own_id, tuple(readable), object_tail(rest), tail is not None)
    is_own = _OWN_PARAMETERS & read_parameters(text, members).keys() or b"shared_memory" in rest.get("outputs", b"")
    group: Hashable = (
        V2Codec.name,
        head.method,
        head.target,
        header_key(head.headers),
        detail.framed,
        text.nonfinite,
        tuple(sorted((key, text.compact(value)) for key, value in rest.items())),
        tuple(item.key for item in readable),
    )
    return Part(rows, object() if is_own else group, head, body, detail)


def _share(part: Part, outputs: Sequence[Share], rest: dict[str, bytes], whole: Answer) -> Answer:
    request: InferRequest = part.detail
    pieces: Pieces = [b'{"outputs":[']
    for output in outputs:
        pieces += (*output.json, b",")
    members = rest if request.id is None else {"id": request.id, **rest}
    end = b"]" + object_tail(members)
    if outputs:
        pieces[-1] = end
    else:
        pieces.append(end)
    json_bytes = sum(map(len, pieces))
    binary = [output.binary for output in outputs if output.binary is not None]
    body = b"".join([*pieces, *binary])
    headers = [*whole.headers, (b"content-length", b"%d" % len(body))]
    if binary:
        headers.append((JSON_LENGTH, b"%d" % json_bytes))
    return Answer(whole.status, headers, body)
