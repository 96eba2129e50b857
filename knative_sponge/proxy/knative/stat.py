"""What Knative's autoscaler asks each pod for on port 9090 (docs/knative-contract.md §1.14). Decides nothing, counts no probe.

Arithmetic and encoding are pure; `StatReporter` publishes them once a second.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.codec.base import Answer
from knative_sponge.proxy.http.plain_answers import deliver, error

_TYPE: Final = (b"content-type", b"application/protobuf")
"""Compared byte for byte by the autoscaler: no charset."""
_NOT_FOUND: Final = error(404, "404 page not found")


@dataclass(frozen=True, slots=True)
class Stat:
    """The message `metrics.Stat`. Concurrencies are time-weighted means, rates are requests per second."""

    pod_name: str
    concurrency: float = 0.0
    proxied_concurrency: float = 0.0
    request_rate: float = 0.0
    proxied_request_rate: float = 0.0
    uptime_s: float = 0.0


def encode(stat: Stat) -> bytes:
    """The protobuf bytes (proto3: fields 1 to 6, zeros left out)."""
    name = stat.pod_name.encode()
    parts = [b"\x0a", _varint(len(name)), name] if name else []
    numbers = (
        stat.concurrency, stat.proxied_concurrency, stat.request_rate, stat.proxied_request_rate, stat.uptime_s,
    )  # fmt: skip
    for field, value in enumerate(numbers, start=2):
        if value:
            parts.append(struct.pack("<Bd", field << 3 | 1, value))
    return b"".join(parts)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


class Occupancy:
    """Requests in the proxy over time. Every `now` is monotonic seconds and never goes back; windows follow each other.

    A proxied request is one that came through Knative's activator, which reports it itself.
    """

    __slots__ = (
        "_area", "_began_s", "_changed_s", "_inside", "_last_s", "_proxied", "_proxied_area", "_proxied_seen", "_seen",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self._began_s = self._changed_s = self._last_s = now
        self._inside = self._proxied = 0
        self._seen = self._proxied_seen = 0
        self._area = self._proxied_area = 0.0

    def enter(self, now: float, proxied: bool) -> None:
        """A request came."""
        self._advance(now)
        self._inside += 1
        self._seen += 1
        if proxied:
            self._proxied += 1
            self._proxied_seen += 1

    def leave(self, now: float, proxied: bool) -> None:
        """A request is over."""
        self._advance(now)
        self._inside -= 1
        self._last_s = now
        if proxied:
            self._proxied -= 1

    def idle_s(self, now: float) -> float:
        """Seconds since the last request was over, or since the beginning; 0 while one is inside."""
        return 0.0 if self._inside else now - self._last_s

    def take(self, now: float, pod_name: str, uptime_s: float) -> Stat:
        """The window that ends now; the next one begins."""
        self._advance(now)
        length_s = now - self._began_s
        stat = Stat(pod_name, uptime_s=uptime_s)
        if length_s > 0:
            stat = Stat(
                pod_name,
                self._area / length_s,
                self._proxied_area / length_s,
                self._seen / length_s,
                self._proxied_seen / length_s,
                uptime_s,
            )
        self._began_s = now
        self._seen = self._proxied_seen = 0
        self._area = self._proxied_area = 0.0
        return stat

    def _advance(self, now: float) -> None:
        passed_s = now - self._changed_s
        self._area += self._inside * passed_s
        self._proxied_area += self._proxied * passed_s
        self._changed_s = now


class StatReporter:
    """ASGI application of the stat port: `/metrics` answers with the last whole window, whatever the method.

    Before the first window has ended only the pod's name is known. clock: monotonic seconds.
    """

    period_s: ClassVar[float] = 1.0

    def __init__(self, pod_name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pod_name = pod_name
        self._clock = clock
        self._began_s = clock()
        self._body = encode(Stat(pod_name))
        self._timer: asyncio.TimerHandle | None = None
        self._occupancy = Occupancy(self._began_s)

    def enter(self, proxied: bool) -> None:
        """A request came."""
        self._occupancy.enter(self._clock(), proxied)

    def leave(self, proxied: bool) -> None:
        """A request is over."""
        self._occupancy.leave(self._clock(), proxied)

    def idle_s(self) -> float:
        """See `Occupancy.idle_s`."""
        return self._occupancy.idle_s(self._clock())

    def start(self) -> None:
        """Begin the windows. Needs a running loop."""
        self._occupancy.take(self._clock(), self._pod_name, 0.0)
        loop = asyncio.get_running_loop()
        self._schedule(loop, loop.time())

    def stop(self) -> None:
        """Publish nothing new any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            await deliver(_NOT_FOUND, send)
            return
        body = self._body
        await deliver(Answer(200, (_TYPE, (b"content-length", b"%d" % len(body))), body), send)

    def _schedule(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        # Counted from when it was due, not from when it ran: windows do not drift. The windows that a busy loop missed
        # become one long window.
        missed = max(0, int((loop.time() - due_s) / self.period_s))
        due_s += (1 + missed) * self.period_s
        self._timer = loop.call_at(due_s, self._publish, loop, due_s)

    def _publish(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        now = self._clock()
        self._body = encode(self._occupancy.take(now, self._pod_name, now - self._began_s))
        self._schedule(loop, due_s)
