"""What a request's head means as an ASGI scope, or why it is refused. No sockets; ambiguity is not repaired."""

from __future__ import annotations

import string
from typing import Any, Final
from urllib.parse import unquote

from knative_sponge.asgi import Scope
from knative_sponge.errors import BadRequest
from knative_sponge.proxy.http.head_limits import MOST_DIGITS
from knative_sponge.proxy.http.headers import HOST_BYTES, Pair

Address = tuple[str, int]

_ASGI: Final = {"version": "3.0", "spec_version": "2.5"}
_EXTENSIONS: Final[dict[str, dict[str, Any]]] = {"http.response.trailers": {}, "sponge.http": {}}
_LEGAL: Final = (string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@[]/%?").encode()
"""What a request target may hold as it is; the brackets as Go has it."""
_ESCAPES: Final = tuple(bytes((byte,)) if byte in _LEGAL else b"%%%02X" % byte for byte in range(256))
"""Each byte as it stands in a path."""
_SINGULAR: Final = frozenset({b"host", b"expect", b"transfer-encoding", b"content-length"})


def http_scope(
    method: str,
    version: str,
    target: bytes,
    headers: list[Pair],
    scheme: str,
    client: Address | None,
    server: Address | None,
) -> Scope:
    """The scope of one request; beyond ASGI, `sponge.target` is its target in origin form, byte for byte if it is legal.

    Of fields that frame or address a message there is one at most, and only the framings and expectations the proxy can
    honour are let in. Raises BadRequest, with status 400, 417, 501 or 505.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGULAR:
            if name in found:
                raise BadRequest(f"more than one {name.decode()}")
            found[name] = value.lower()
    if version == "1.1":
        if b"host" not in found:
            raise BadRequest("missing required Host header")
    elif version != "1.0" or b"transfer-encoding" in found:
        raise BadRequest("not supported in this version of HTTP", status=505)
    if found.get(b"transfer-encoding", b"chunked") != b"chunked":
        raise BadRequest("this transfer coding is not supported", status=501)
    if found.get(b"expect", b"100-continue") != b"100-continue":
        raise BadRequest("this expectation is not supported", status=417)
    if len(found.get(b"content-length", b"")) > MOST_DIGITS:
        raise BadRequest("malformed Content-Length")
    if not target.startswith(b"/"):
        target, headers = _origin_form(method, target, headers)
        if headers and headers[0][0] == b"host":
            found[b"host"] = headers[0][1]
    if found.get(b"host", b"").translate(None, HOST_BYTES):
        raise BadRequest("malformed Host header")
    if target.translate(None, _LEGAL):
        target = _escaped(target)
    path, _, query = target.partition(b"?")
    text = path.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method,
        "scheme": scheme,
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
        "extensions": _EXTENSIONS,
        "sponge.target": target,
    }


def _origin_form(method: str, target: bytes, headers: list[Pair]) -> tuple[bytes, list[Pair]]:
    """The target as an origin server wants it; the host of an absolute one replaces Host (RFC 9112 §3.2.2)."""
    if method == "CONNECT" or (target == b"*" and method == "OPTIONS"):
        return target, headers
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https") or b"#" in target:
        raise BadRequest("this form of request target is not supported")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    path = rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
    return path, [(b"host", rest[:end]), *(pair for pair in headers if pair[0] != b"host")]


def _escaped(target: bytes) -> bytes:
    """The target with what is illegal in a path escaped there, as in Go's server; the query is left as it is."""
    path, mark, query = target.partition(b"?")
    return b"".join([_ESCAPES[byte] for byte in path]) + mark + query


def offered_protocols(method: str, version: str, headers: list[Pair]) -> bytes:
    """The protocols of a request's Upgrade fields that a model server may switch to; empty when there are none.

    HTTP/2 is none of them: it would need translation, and a server may ignore any offer. CONNECT offers itself.
    """
    if version != "1.1":
        return b""
    if method == "CONNECT":
        return b"CONNECT"
    tokens = [token.strip() for name, value in headers if name == b"upgrade" for token in value.split(b",")]
    return b", ".join([token for token in tokens if token and token.lower() != b"h2c"])


def address(pair: tuple[Any, ...] | None) -> Address | None:
    """Host and port of a socket address; an IPv4 one that a dual-stack listener shows as IPv6 is IPv4 again."""
    if not pair:
        return None
    host, port = pair[:2]
    return (host.removeprefix("::ffff:") if "." in host else host), port
