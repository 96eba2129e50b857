"""Which revisions without pods have requests waiting for them: read from the activators' metrics; nothing is decided here.

Knative has no other source for that. Its activators push their counts to Knative's own autoscaler only, over a
connection that
cannot be shared; but with `metrics-protocol: prometheus` each serves them at :9090/metrics. `kn_revision_request_queued` (from
Knative 1.22 on) counts a waiting request at once. `kn_revision_request_concurrency` is set once a second, and less the one
request that woke the revision in the first of these seconds: a single request shows in it after one to two seconds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

import aiohttp

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.informer import Informer
from knative_sponge.controller.kube.resource import ENDPOINT_SLICES, Key, Object

_log: Final = logging.getLogger(__name__)

METRICS_PORT: Final = 9090
POLL_S: Final = 0.5
"""Between two looks while a revision sleeps."""
REST_S: Final = 5.0
"""While nobody waits for a request, only so often: whether the activators can be read must be known beforehand."""
LOST_S: Final = 10.0
"""The view is lost when for so long not every ready activator could be read."""
_CALL_S: Final = 1.0
_LONGEST_LINE: Final = 64 * 1024

_LINE: Final = re.compile(rb"\nkn_revision_request_(queued|active|concurrency)\{([^\n]*)\} (\S+)")
_NAMESPACE: Final = re.compile(rb'\bk8s_namespace_name="([^"]*)"')
_REVISION: Final = re.compile(rb'\bkn_revision_name="([^"]*)"')
_PROOF: Final = b"\ntarget_info{"
"""Every exporter that names metrics as above has this one from the start, even where no revision had a request yet."""


@dataclass(frozen=True, slots=True)
class Activator:
    """Where an activator's pod is. ready: it gets new requests; one that is on its way out may still hold some."""

    address: str
    ready: bool


async def waiting(chunks: AsyncIterator[bytes]) -> Mapping[Key, float]:
    """Requests that an activator holds, queued or proxied, by revision; only those above zero.

    chunks: the text format of Prometheus; all other lines are skipped. Raises ValueError when this is not the text of an
    activator whose metrics have the names that we know.
    """
    counted: dict[Key, float] = defaultdict(float)
    gauged: dict[Key, float] = defaultdict(float)
    proven = False
    rest = b"\n"
    async for chunk in chunks:
        text = rest + chunk
        end = text.rfind(b"\n")
        rest = text[end:]
        if len(rest) > _LONGEST_LINE:
            raise ValueError("a line is too long")
        text = text[:end]
        proven = proven or _PROOF in text
        for match in _LINE.finditer(text):
            kind, labels, number = match.groups()
            namespace, revision = _NAMESPACE.search(labels), _REVISION.search(labels)
            if namespace and revision and float(number) > 0.0:
                key = (namespace[1].decode(), revision[1].decode())
                (gauged if kind == b"concurrency" else counted)[key] += float(number)
    if not proven:
        raise ValueError("the metrics have no target_info")
    return {key: max(gauged[key], counted[key]) for key in {*gauged, *counted}}


def kept_of_slice(item: Object) -> Object:
    """Who it is, and the addresses with their conditions."""
    metadata = item["metadata"]
    kept = {name: metadata[name] for name in ("namespace", "name", "resourceVersion")}
    endpoints = [
        {"addresses": endpoint.get("addresses") or [], "conditions": endpoint.get("conditions") or {}}
        for endpoint in item.get("endpoints") or ()
    ]
    return {"metadata": kept, "endpoints": endpoints}


def activators_of(slices: Iterable[Object]) -> tuple[Activator, ...]:
    """All activators that may hold requests. A condition that is absent counts as Kubernetes says: ready."""
    found: dict[str, bool] = {}
    for item in slices:
        for endpoint in item["endpoints"]:
            conditions = endpoint["conditions"]
            ready = conditions.get("ready") is not False
            if ready or conditions.get("serving"):
                for address in endpoint["addresses"][:1]:
                    found[address] = found.get(address, False) or ready
    return tuple(Activator(address, ready) for address, ready in sorted(found.items()))


class Activators:
    """The view of all activators. `run` it on the leader only.

    port: where they serve metrics. poll_s, rest_s: see POLL_S, REST_S. clock: monotonic seconds.
    """

    def __init__(
        self,
        kube: Kube,
        system_namespace: str,
        rng: random.Random,
        *,
        port: int = METRICS_PORT,
        poll_s: float = POLL_S,
        rest_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slices = Informer(
            kube,
            ENDPOINT_SLICES,
            rng=rng,
            namespace=system_namespace,
            labels="kubernetes.io/service-name=activator-service",
            keep=kept_of_slice,
        )
        self._port = port
        self._poll_s = poll_s
        self._rest_s = rest_s
        self._clock = clock
        self._expected: set[Key] = set()
        self._hurry = asyncio.Event()
        self._knocked: Callable[[Key], None] = lambda _key: None
        self._seen: Callable[[], None] = lambda: None
        self._waiting: dict[str, Mapping[Key, float]] = {}
        self._whole_s = -inf
        self._since_s = clock()
        self._told = (False, False)
        self._why = ""

    def subscribe(self, on_request: Callable[[Key], None], seen: Callable[[], None]) -> None:
        """Tell `on_request` of each expected revision that has requests waiting, again with each look; `seen` when `available`
        or `lost` changes. Both must not block and must not raise."""
        self._knocked, self._seen = on_request, seen

    def expect(self, key: Key, yes: bool) -> None:
        """Listen for requests of this revision, or no more; the activators are read often only while somebody listens."""
        if not yes:
            self._expected.discard(key)
            return
        if not self._expected:
            self._hurry.set()
        self._expected.add(key)

    def pending(self, key: Key) -> int:
        """Requests of an expected revision that the activators held when they were read last."""
        return ceil(sum(held.get(key, 0.0) for held in self._waiting.values())) if key in self._expected else 0

    @property
    def available(self) -> bool:
        """Would a request be noticed? True while all ready activators can be read."""
        return self._clock() - self._whole_s < LOST_S

    @property
    def lost(self) -> bool:
        """Has nothing been seen for long? Not so at first, or each new leader would wake every revision that sleeps."""
        return self._clock() - max(self._whole_s, self._since_s) >= LOST_S

    async def run(self) -> None:
        """Read them until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_CALL_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            group.create_task(self._slices.run(), name="watch activators")
            await self._slices.synced.wait()
            while True:
                await self._look(session)
                self._hurry.clear()
                try:
                    async with asyncio.timeout(self._poll_s if self._expected else self._rest_s):
                        await self._hurry.wait()
                except TimeoutError:
                    continue

    async def _look(self, session: aiohttp.ClientSession) -> None:
        activators = activators_of(self._slices.objects.values())
        for gone in self._waiting.keys() - {activator.address for activator in activators}:
            del self._waiting[gone]
        read = await asyncio.gather(*(self._read(session, activator.address) for activator in activators))
        ready = [answered for activator, answered in zip(activators, read, strict=True) if activator.ready]
        if ready and all(ready):
            self._whole_s = self._clock()
        elif not ready:
            self._why = "there is no ready activator"
        view = (self.available, self.lost)
        if view == self._told:
            return
        if self.lost:
            _log.warning("the activators cannot be read, so no revision goes to zero: %s", self._why)
        elif self.available:
            _log.info("the activators can be read: idle revisions may go to zero")
        self._told = view
        self._seen()

    async def _read(self, session: aiohttp.ClientSession, address: str) -> bool:
        host = f"[{address}]" if ":" in address else address
        # What is compressed costs an activator more time than a pod network saves.
        headers = {"Accept": "text/plain", "Accept-Encoding": "identity"}
        try:
            url = f"http://{host}:{self._port}/metrics"
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"status {response.status}")
                held = await waiting(response.content.iter_any())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._waiting.pop(address, None)
            self._why = f"{address}: {type(error).__name__}: {error}"
            return False
        self._waiting[address] = {key: held[key] for key in self._expected & held.keys()}
        for key in list(self._waiting[address]):
            self._knocked(key)
        return True
