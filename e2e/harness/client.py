"""A client of the ingress: single requests, a prober that never stops asking, and a bounded load. Threads, no event loop."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, complete. headers: names lower-case; of duplicates the last."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Client:
    """One Service, by its Host at the ingress."""

    def __init__(self, ingress: str, host: str) -> None:
        self.address = urlsplit(ingress).netloc
        self.host = host

    def connection(self, timeout_s: float = 60.0) -> http.client.HTTPConnection:
        """A connection to the ingress; requests on it must name `host`."""
        return http.client.HTTPConnection(self.address, timeout=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] = _NOTHING,
        body: bytes | str | None = None,
        timeout_s: float = 60.0,
        over: http.client.HTTPConnection | None = None,
    ) -> Response:
        """One request, on a connection of its own or `over` one. Raises OSError or http.client.HTTPException."""
        connection = over or self.connection(timeout_s)
        started_s = time.monotonic()
        try:
            connection.request(method, path, body=body, headers={"Host": self.host, **headers})
            answer = connection.getresponse()
            content = answer.read()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, fields, content, time.monotonic() - started_s)
        finally:
            if over is None:
                connection.close()

    def get(self, path: str = "/", **more: Any) -> Response:
        """GET."""
        return self.request("GET", path, **more)

    def post_json(self, path: str, value: Any, *, headers: Mapping[str, str] = _NOTHING, **more: Any) -> Response:
        """POST a JSON document."""
        fields = {"Content-Type": "application/json", **headers}
        return self.request("POST", path, body=json.dumps(value), headers=fields, **more)


@dataclass(slots=True)
class Tally:
    """What a prober or a load saw: answers by status, and what went wrong otherwise."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, send: Callable[[], Response]) -> None:
        """Send one request and count how it ended."""
        try:
            answer = send()
        except (OSError, http.client.HTTPException) as error:
            with self.lock:
                self.errors.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
            return
        with self.lock:
            self.statuses[answer.status] += 1
            self.longest_s = max(self.longest_s, answer.seconds)
            if answer.status != 200:
                reason = answer.headers.get("sponge-reason", "")
                self.errors.append(f"{time.strftime('%H:%M:%S')} {answer.status} {reason} {answer.body[:100]!r}")

    @property
    def sent(self) -> int:
        """Requests that have ended one way or the other."""
        return self.statuses[200] + len(self.errors)


@contextmanager
def asking(send: Callable[[], Response], *, every_s: float = 0.02, clients: int = 1) -> Iterator[Tally]:
    """While the block runs, `clients` threads keep sending, each `every_s` after its last answer."""
    tally = Tally()
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(every_s):
            tally.add(send)

    with ThreadPoolExecutor(clients) as pool:
        workers = [pool.submit(work) for _ in range(clients)]
        try:
            yield tally
        finally:
            stop.set()
            for worker in workers:
                worker.result()


def together(send: Sequence[Callable[[], Response]]) -> list[Response]:
    """All at once, each on a thread of its own; the answers in order. Raises what the first that failed raised."""
    with ThreadPoolExecutor(max(len(send), 1)) as pool:
        return [future.result() for future in [pool.submit(one) for one in send]]
