"""Servers that take a bare JSON array of rows and answer with an array of as many: merge, split. Bytes in, bytes out.

Nothing in such a request says that the server works row by row, so this codec is used only when it is asked for by name.
Any body but a JSON array of rows of equal structure is sent alone, byte for byte as received. Only a body that is not
JSON is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from knative_sponge.codec.base import Answer, Call, Part, RequestHead
from knative_sponge.codec.headers import call_headers, header_key, is_encoded, says_json, share_headers
from knative_sponge.codec.json.rows import Rows, cut_rows, merge_rows, read_rows
from knative_sponge.codec.json.text import JsonError, JsonText, json_fault
from knative_sponge.errors import BadRequest, UpstreamBroken


class JsonArrayCodec:
    """Codec of `POST <any path>` with body `[row, …]` and answer `[answer, …]` (docs/design.md §3.1, protocol `json-array`)."""

    name: str = "json-array"

    def wants(self, head: RequestHead) -> bool:
        """Every POST: only `parse` sees what the body is."""
        return head.method == "POST"

    def parse(self, head: RequestHead, body: bytes) -> Part:
        """Understand one request. Raises BadRequest when the body is not JSON though it says so, or says nothing."""
        alone = Part(1, object(), head, body)
        if is_encoded(head.headers):
            return alone
        text = JsonText(body, lift=False)
        try:
            text.check()
            rows = read_rows(text, body)
        except JsonError:
            fault = json_fault(body)
            if fault is not None and says_json(head):
                raise BadRequest(f"the body is not JSON: {fault}") from None
            return alone
        if rows is None:
            return alone
        group: Hashable = (self.name, head.method, head.target, header_key(head.headers), text.nonfinite, rows.kind)
        return Part(rows.count, group, head, body, rows)

    def merge(self, parts: Sequence[Part]) -> Call:
        """One upstream call for parts of equal group, in order. A single part is sent byte for byte as received."""
        head = parts[0].head
        if len(parts) == 1:
            return Call(head.method, head.target, head.headers, parts[0].body)
        rows: list[Rows] = [part.detail for part in parts]
        body = merge_rows(rows)
        return Call(head.method, head.target, call_headers(head.headers, len(body)), body)

    def split(self, parts: Sequence[Part], answer: Answer) -> list[Answer]:
        """Each part's own rows of the answer, in order; a single part's is the answer itself.

        Raises UpstreamMismatch when the rows do not add up, UpstreamBroken when the answer is not JSON.
        """
        if len(parts) == 1:
            return [answer]
        if is_encoded(answer.headers):
            raise UpstreamBroken("the answer to a merged call is compressed although identity was asked")
        if fault := json_fault(answer.body):
            raise UpstreamBroken(f"the answer to a merged call is not JSON: {fault}")
        shares = cut_rows(JsonText(answer.body, lift=False), answer.body, [part.rows for part in parts])
        headers = share_headers(answer.headers)
        return [Answer(answer.status, [*headers, (b"content-length", b"%d" % len(share))], share) for share in shares]
