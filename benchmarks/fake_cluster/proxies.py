"""The queue-proxies of all pods as the autoscaler sees them: they send demand lines and are told sizes. It also measures how
soon a size follows a want.

A want is the size that a pod needs. It changes by factors of two between LEAST and MOST, and the curve of expected misses goes
with it. The other fields change with each line, as under load.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from benchmarks.fake_cluster.http import Connection
from benchmarks.fake_cluster.objects import address
from knative_sponge.controller.kube.resource import Key
from knative_sponge.core.latency.curve import LatencyParams, Sample
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json
from knative_sponge.wire import http as wire
from knative_sponge.wire.cores import Phase, decode_cores
from knative_sponge.wire.demand import DemandLine, encode_demand
from knative_sponge.wire.state import CoresState, ProxyState, encode_state

LEAST: Final = 0.25
MOST: Final = 4.0
_POINTS: Final = 8
_FLOOR: Final = 0.1
_BEAT_S: Final = 1.0
_PARAMS: Final = LatencyParams(0.031, 0.0002, 0.004, 0.001)


@dataclass(slots=True)
class _Proxy:
    key: Key
    cores: float
    want: float
    roomy: bool
    spec: float
    seq: int = 0
    met: int = 0
    stream: Connection | None = None
    beat: asyncio.TimerHandle | None = None
    asked_s: float | None = None
    """When the line was sent that wants more than the size in spec; None once spec covers the want."""
    patched_s: float | None = None


@dataclass(slots=True)
class Seen:
    """What the cluster saw since the last `take`.

    waits: seconds from a line that wants more to the patch that gives all of it. short: on nodes that cannot give everything,
    seconds from such a line to the first patch that gives more. gaps: seconds between two patches of one pod.
    """

    waits: list[float] = field(default_factory=list)
    short: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """lines, changes, patches, told."""


class Proxies:
    """All of them behind one listener, told apart by the address that a client connects to."""

    def __init__(self, rng: random.Random) -> None:
        self.seen = Seen()
        self.share = 0.0
        """Share of the pods whose want changes, per second."""
        self._rng = rng
        self._by_address: dict[str, _Proxy] = {}
        self._by_key: dict[Key, _Proxy] = {}
        model = LatencyModel(_PARAMS)
        for rows in (1, 2, 4, 8, 16, 32):
            for cores in (0.5, 1.0, 2.0, 4.0):
                model.observe(Sample(rows, cores, _PARAMS.latency_s(rows, cores)), 0.0)
        self._model = to_json(model)

    def add(self, number: int, key: Key, cores: float, want: float, *, roomy: bool) -> None:
        """Add the proxy of pod `number`. roomy: its node can give everything."""
        proxy = _Proxy(key, cores, want, roomy, cores, met=self._rng.randrange(10**6))
        self._by_address[address(number)] = self._by_key[key] = proxy

    @property
    def streams(self) -> int:
        """The number of proxies whose stream is read."""
        return sum(proxy.stream is not None for proxy in self._by_key.values())

    def resized(self, key: Key, cores: float) -> None:
        """The API server got a patch of a size."""
        now, seen, proxy = time.monotonic(), self.seen, self._by_key[key]
        seen.counts["patches"] += 1
        if proxy.patched_s is not None:
            seen.gaps.append(now - proxy.patched_s)
        more, proxy.spec, proxy.patched_s = cores > proxy.spec, cores, now
        if proxy.asked_s is not None and more and (cores >= proxy.want - 0.002 or not proxy.roomy):
            (seen.waits if proxy.roomy else seen.short).append(now - proxy.asked_s)
            proxy.asked_s = None

    async def change(self) -> None:
        """Change wants at random times, for ever."""
        proxies = list(self._by_key.values())
        next_s = time.monotonic()
        while True:
            if not self.share:
                await asyncio.sleep(0.1)
                next_s = time.monotonic()
                continue
            next_s += self._rng.expovariate(self.share * len(proxies))
            await asyncio.sleep(next_s - time.monotonic())
            self._change(self._rng.choice(proxies))

    def _change(self, proxy: _Proxy) -> None:
        factor = self._rng.choice((0.5, 2.0))
        if not LEAST <= proxy.want * factor <= MOST:
            factor = 1 / factor
        proxy.want *= factor
        self.seen.counts["changes"] += 1
        if factor < 1:
            proxy.asked_s = None
        elif proxy.want > 1.02 * proxy.spec:
            proxy.asked_s = time.monotonic()
        self._say(proxy)

    def handle(self, connection: Connection) -> None:
        """One request."""
        proxy = self._by_address[connection.local]
        match connection.method, connection.path:
            case "GET", wire.DEMAND_PATH:
                connection.stream("application/jsonl")
                proxy.stream = connection

                def gone() -> None:
                    if proxy.stream is connection:
                        proxy.stream = None

                connection.closed = gone
                self._say(proxy)
            case "PUT", wire.CORES_PATH:
                message = decode_cores(connection.body)
                self.seen.counts["told"] += 1
                if message.phase is Phase.ACTUATED or message.cores < proxy.cores:
                    proxy.cores = message.cores
                connection.reply(204)
            case _:
                sizes = CoresState(now=proxy.cores, want=proxy.want)
                connection.reply(200, encode_state(ProxyState(cores=sizes, rate=10.0, model=self._model)))

    def _say(self, proxy: _Proxy) -> None:
        if proxy.beat is not None:
            proxy.beat.cancel()
            proxy.beat = None
        if proxy.stream is None:
            return
        proxy.beat = asyncio.get_running_loop().call_later(_BEAT_S, self._say, proxy)
        proxy.stream.chunk(encode_demand(self._line(proxy)))
        self.seen.counts["lines"] += 1

    def _line(self, proxy: _Proxy) -> DemandLine:
        rng, want = self._rng, proxy.want
        rate = 12.0 * want * rng.uniform(0.9, 1.1)
        proxy.seq += 1
        proxy.met += round(rate)
        ratio = (2 * MOST / _FLOOR) ** (1 / (_POINTS - 1))
        sizes = [_FLOOR * ratio**step for step in range(_POINTS)]
        curve = tuple((round(size, 3), round(rate * max(0.0, 1 - size / want) ** 1.5, 3)) for size in sizes)
        params = _PARAMS.gamma, _PARAMS.delta, _PARAMS.epsilon, _PARAMS.eta
        return DemandLine(
            seq=proxy.seq,
            cores=proxy.cores,
            want=want,
            rate=round(rate, 3),
            slack=0.31,
            queued=rng.randrange(4),
            running=1,
            idle_s=0.0,
            met=proxy.met,
            missed=3,
            max_batch=32,
            params=params,
            cost=params,
            samples=min(proxy.met, 10**5),
            curve=curve,
        )
