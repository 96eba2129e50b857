"""KServe V1 and TensorFlow Serving row format: merge `instances`, split `predictions`. Bytes in, bytes out.

These requests are sent alone, byte for byte as received: the columnar form (`inputs`), requests without rows or whose
rows differ in structure, compressed bodies, repeated keys. Only a body that is not JSON is refused.
An answer's members beside `predictions` go to every client unchanged, so a server that puts other lists of rows there
must not be served this way.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from knative_sponge.codec.base import Answer, Call, Part, RequestHead
from knative_sponge.codec.headers import call_headers, header_key, is_encoded, says_json, share_headers
from knative_sponge.codec.json.rows import Rows, cut_rows, merge_rows, read_rows
from knative_sponge.codec.json.text import JsonError, JsonText, check_repeated, json_fault, object_tail
from knative_sponge.codec.target import matches
from knative_sponge.errors import BadRequest, UpstreamBroken, UpstreamMismatch

_PATH = re.compile(rb"/v1/models/[^/]+(?:/(?:versions|labels)/[^/]+)?:predict", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A request that can be merged. rest: its members but the instances, as the end of an object."""

    rows: Rows
    rest: bytes


class V1Codec:
    """Codec of `POST /v1/models/<model>[/versions/<version>|/labels/<label>]:predict` (docs/design.md §3.1, protocol `v1`)."""

    name: str = "v1"

    def wants(self, head: RequestHead) -> bool:
        """Whether the request is a prediction, by method and path."""
        return head.method == "POST" and matches(_PATH, head.target)

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """Understand one request. Raises BadRequest when the body is not JSON."""
        alone = Part(1, object(), head, body)
        if is_encoded(head.headers):
            return alone
        try:
            return _read(head, body) or alone
        except JsonError:
            fault = json_fault(body)
            if fault is not None and says_json(head):
                raise BadRequest(f"the body is not JSON: {fault}") from None
            return alone

    def merge(self, parts: Sequence[Part]) -> Call:
        """One upstream call for parts of equal group, in order. A single part is sent byte for byte as received."""
        head = parts[0].head
        if len(parts) == 1:
            return Call(head.method, head.target, head.headers, parts[0].body)
        requests: list[PredictRequest] = [part.detail for part in parts]
        body = merge_rows([request.rows for request in requests], b'{"instances":', requests[0].rest)
        return Call(head.method, head.target, call_headers(head.headers, len(body)), body)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """Each part's own predictions, its elements of other lists of that length, and the answer's other members, in
        order; a single part's is the answer itself.

        Raises UpstreamMismatch when the rows do not add up, UpstreamBroken when the answer is not of the protocol.
        """
        if len(parts) == 1:
            return [answer]
        if is_encoded(answer.headers):
            raise UpstreamBroken("the answer to a merged call is compressed although identity was asked")
        text = JsonText(answer.body, lift=False)
        try:
            members = text.members(answer.body, large="predictions")
        except JsonError as error:
            raise UpstreamBroken(f"the answer to a merged call is not V1: {error}") from error
        if "predictions" not in members:
            raise UpstreamBroken("the answer to a merged call is not V1: no predictions")
        counts = [part.rows for part in parts]
        shares = cut_rows(text, members.pop("predictions"), counts)
        # A list beside the predictions that is as long as they are has an element per row: nobody gets another's.
        lists = {key: cut for key, value in members.items() if (cut := _rowwise(text, value, counts)) is not None}
        try:
            check_repeated({key: value for key, value in members.items() if key not in lists}, len(parts))
        except JsonError as error:
            raise UpstreamBroken(f"the answer to a merged call is too large: {error}") from error
        headers = share_headers(answer.headers)
        bodies = []
        for at, share in enumerate(shares):
            own = {key: lists[key][at] if key in lists else value for key, value in members.items()}
            bodies.append(b'{"predictions":' + share + object_tail(own))
        return [Answer(answer.status, [*headers, (b"content-length", b"%d" % len(body))], body) for body in bodies]


def _rowwise(text: JsonText, raw: bytes, counts: Sequence[int]) -> list[bytes] | None:
    """The parts' shares of a list that has an element per row; None for any other value."""
    if not raw.lstrip().startswith(b"["):
        return None
    try:
        return cut_rows(text, raw, counts)
    except UpstreamMismatch:
        return None


def _read(head: RequestHead, body: bytes) -> Part | None:
    """The request as a part; None when it may be right but cannot be merged."""
    text = JsonText(body, lift=False)
    text.check()
    members = text.members(body, large="instances")
    if "instances" not in members or "inputs" in members:
        return None
    rows = read_rows(text, members.pop("instances"))
    if rows is None:
        return None
    others = tuple(sorted((key, text.compact(value)) for key, value in members.items()))
    group: Hashable = (
        V1Codec.name,
        head.method,
        head.target,
        header_key(head.headers),
        text.nonfinite,
        others,
        rows.kind,
    )
    return Part(rows.count, group, head, body, PredictRequest(rows, object_tail(members)))
