"""Whether a server on this machine is ready, asked over HTTP/1.1; decides nothing about ports and cores."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from knative_sponge.core.backoff import Backoff
from knative_sponge.local.servers import READY_PATHS

_ANSWER_S: Final = 2.0
"""A server that is loading may be slow to answer. It is then asked again."""
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 0.25
"""Between two questions. Each is a line in the log of a server that writes one."""
_MOST_HEAD: Final = 16384
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_LOADING: Final = frozenset({400, 425, 429, 503})
"""Statuses of a server that is there and not ready: 503 by custom, 400 by MLServer and Triton. Any other is no answer to this
question: 404 of a server without the path, 401 of one that does not show it, 500 of an application that takes all paths."""
_NOWHERE: Final = "/sponge-asks-for-a-path-that-nobody-has"
_EXPOSITION: Final = re.compile(
    rb"\ncontent-type:[^\r\n]*(?:version=0\.0\.4|version=1\.0\.0|openmetrics)", re.IGNORECASE
)
"""How Prometheus' own clients mark a page of metrics, which they serve under every path of a port of their own."""


class Verdict(Enum):
    """What one question brought to light."""

    READY = auto()
    LOADING = auto()
    NO_ROUTE = auto()
    SILENT = auto()
    NOT_HTTP = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """status: HTTP's, 0 for none. metrics: the body is a page of Prometheus metrics."""

    verdict: Verdict
    status: int = 0
    metrics: bool = False

    def __str__(self) -> str:
        if self.status:
            return f"answers {self.status}"
        return {Verdict.SILENT: "does not answer yet", Verdict.REFUSED: "accepts no connection"}.get(
            self.verdict, "does not speak HTTP/1.1"
        )


async def ask(host: str, port: int, path: str, answer_s: float = _ANSWER_S) -> Answer:
    """GET one path. A status from 200 to 399 is ready, as for the kubelet; `answer_s` bounds the wait for the answer's head."""
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=_MOST_HEAD)
    except OSError:
        return Answer(Verdict.REFUSED)
    try:
        name = f"[{host}]" if ":" in host else host
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: {name}:{port}\r\nuser-agent: knative-sponge\r\n"
            "accept: */*\r\nconnection: close\r\n\r\n".encode()
        )
        async with asyncio.timeout(answer_s):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        # Closed without a word: a server that is going down, or one that speaks another protocol.
        head = error.partial
    except asyncio.LimitOverrunError:
        head = await reader.read(_MOST_HEAD)
    except TimeoutError:
        return Answer(Verdict.SILENT)
    except OSError:
        return Answer(Verdict.NOT_HTTP)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return _judge(head)


def _judge(head: bytes) -> Answer:
    match = _STATUS.match(head)
    if match is None:
        return Answer(Verdict.NOT_HTTP)
    status = int(match[1])
    if 200 <= status < 400:
        return Answer(Verdict.READY, status, metrics=_EXPOSITION.search(head) is not None)
    return Answer(Verdict.LOADING if status in _LOADING else Verdict.NO_ROUTE, status)


async def look(host: str, port: int, paths: Sequence[str] = READY_PATHS) -> tuple[str | None, Answer]:
    """Ask the paths in order until one is there: (that path, its answer). None when the server has none of them."""
    answer = Answer(Verdict.NO_ROUTE)
    for path in paths:
        answer = await ask(host, port, path)
        if answer.verdict is Verdict.NO_ROUTE:
            continue
        # An application that takes all paths may call a GET without a body a bad request, wherever it goes.
        if answer.status == 400 and (await ask(host, port, _NOWHERE)).status == 400:
            continue
        return path, answer
    return None, answer


async def wait_ready(host: str, port: int, path: str | None, heard: Callable[[str, Answer], None]) -> str | None:
    """Return as soon as the server is ready: the path that says so, None for a server that has none; the caller bounds it.

    path: the one that must be ready; None takes the first of `READY_PATHS` that the server has, and a server without any, or
    without HTTP/1.1, is ready because it accepts connections. heard: gets path and answer whenever the server is not ready.
    """
    backoff = Backoff(_FIRST_RETRY_S, _LAST_RETRY_S)
    while True:
        found, answer = await look(host, port, READY_PATHS if path is None else (path,))
        if answer.verdict is Verdict.READY:
            return found
        if path is None and (found is None or answer.verdict is Verdict.NOT_HTTP):
            return None
        heard(path or found or "/", answer)
        await asyncio.sleep(backoff.wait_s())
