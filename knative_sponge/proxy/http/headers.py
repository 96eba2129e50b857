"""What happens to header fields on their way through: pure functions on lists of pairs, no sockets, no ASGI.

Names are lower-case throughout, as ASGI has them; values, order and duplicates are kept. Source: docs/knative-contract.md §1.9.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import Final

from knative_sponge.errors import BadRequest

Pair = tuple[bytes, bytes]

HOST_BYTES: Final = (string.ascii_letters + string.digits + "!$%&'()*+,-.:;=[]_~").encode()
"""What a Host may hold, as Go has it: neither blanks nor anything that would make it more than a host and a port."""

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
_REPEATED = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
"""Values of Connection that name no other field."""
_ALWAYS_KEPT = frozenset({
    b"content-length", b"host", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
})  # fmt: skip
"""Fields that `Connection` cannot remove, though it names them: they frame the message or say where it comes from."""

REWRITTEN = frozenset({
    b"host", b"user-agent", b"k-original-host", b"knative-serving-revision", b"knative-serving-namespace",
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
})  # fmt: skip


def end_to_end(headers: Sequence[Pair]) -> list[Pair]:
    """The fields that go further than one connection: hop-by-hop ones and those `Connection` names are left out.

    `te: trailers` stays, for gRPC; `Trailer` stays because trailers are carried.
    """
    kept = [pair for pair in headers if pair[0] not in HOP_BY_HOP]
    if len(kept) != len(headers):
        named: set[bytes] = set()
        trailers = False
        for name, value in headers:
            if name == b"connection" and value not in _REPEATED:
                named |= tokens(value)
            elif name == b"te" and not trailers:
                trailers = b"trailers" in tokens(value)
        named -= _ALWAYS_KEPT
        if named:
            kept = [pair for pair in kept if pair[0] not in named]
        if trailers:
            kept.append((b"te", b"trailers"))
    return kept


def tokens(value: bytes) -> set[bytes]:
    """The elements of a comma-separated value, lower-case."""
    return {token.strip().lower() for token in value.split(b",")}


def inbound(headers: Sequence[Pair], peer: bytes, default_host: bytes) -> list[Pair]:
    """The fields of a request as the model server shall see them.

    peer: address of the client, appended to X-Forwarded-For; empty when unknown.
    default_host: Host of a request that names none (HTTP/1.0).

    Raises BadRequest when K-Original-Host is not a host.
    """
    kept: list[Pair] = []
    found: dict[bytes, bytes] = {}
    route: list[bytes] = []
    for pair in headers:
        name, value = pair
        if name not in REWRITTEN:
            kept.append(pair)
        elif name == b"x-forwarded-for":
            route.append(value)
            found.setdefault(name, value)
        elif name in {b"user-agent", b"forwarded"} or name.startswith(b"x-forwarded-"):
            if value:
                found.setdefault(name, value)
                kept.append(pair)
        elif name in {b"host", b"k-original-host"}:
            found.setdefault(name, value)
    host = found.get(b"k-original-host", b"")
    if host:
        if host.translate(None, HOST_BYTES):
            raise BadRequest("K-Original-Host is not a host")
    else:
        host = found.get(b"host") or default_host
        if b"k-original-host" in found:
            kept.append((b"k-original-host", b""))
    forwarded = _forwarded(found)
    if forwarded:
        kept.append((b"forwarded", forwarded))
    if peer:
        route.append(peer)
    joined = b", ".join(route)
    if joined:
        kept.append((b"x-forwarded-for", joined))
    kept.insert(0, (b"host", host))
    return kept


def _forwarded(found: dict[bytes, bytes]) -> bytes:
    """The Forwarded value that the X-Forwarded-* fields amount to; empty without them, or when there is one already."""
    if b"forwarded" in found:
        return b""
    nodes = []
    route = found.get(b"x-forwarded-for")
    if route:
        for element in route.removesuffix(b",").split(b","):
            node = element.strip()
            nodes.append(b'for="[%b]"' % node if b":" in node else b"for=%b" % node)
    first = nodes[:1]
    for field, parameter in ((b"x-forwarded-host", b"host=%b"), (b"x-forwarded-proto", b"proto=%b")):
        if field in found:
            first.append(parameter % found[field])
    return b", ".join([b";".join(first), *nodes[1:]])


def request_head(method: str, target: bytes, headers: Iterable[Pair]) -> bytes:
    """The bytes of a request's head, blank line included."""
    lines = [method.encode("ascii"), b" ", target, b" HTTP/1.1\r\n"]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
