"""Who leads: one holder of a Lease at a time. `Election` is the rule, without I/O or clock; `Elector` carries it out.

A holder renews the Lease. A candidate that sees it unchanged for its whole duration, by its own clock, may take it. A holder
whose renewals fail stops leading after two thirds of that duration, counted from when its last good renewal was *sent*.
Candidates can count only from when that renewal arrived. So the old leader has stopped a third of a duration before a new one
can start, and its work has that third to end. If the work has not ended by then, the process ends (`watchdog`). Every write
ends before its leader's time does. Wall-clock times in the Lease are for people to read; no decision rests on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import LEASES, Object
from knative_sponge.controller.kube.watchdog import must_end
from knative_sponge.errors import KubeError, KubeNotFound, NotLeader

_log: Final = logging.getLogger(__name__)

HOLD_SHARE: Final = 2 / 3
"""A renewal lets its holder lead for this share of the duration."""
_READ_SHARE: Final = 2 / 15
"""The Lease is read once in this share of the duration: several renewals may fail before leading ends."""
_RELEASE_S: Final = 3.0


class Election:
    """What one candidate knows of the Lease. All times are `now`, monotonic seconds of this process.

    identity: unique among candidates. duration_s: other candidates must see this one's Lease unchanged for so long before they
    take it.
    """

    def __init__(self, identity: str, namespace: str, name: str, duration_s: float) -> None:
        if not identity or duration_s < 1:
            raise ValueError("a candidate has an identity and a lease lasts at least a second")
        self._identity = identity
        self._namespace = namespace
        self._name = name
        self._duration_s = duration_s
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._holds_until = float("-inf")

    @property
    def holds_until(self) -> float:
        """The time until which this candidate leads without another renewal."""
        return self._holds_until

    def leads(self, now: float) -> bool:
        """May this candidate write now?"""
        return now < self._holds_until

    def saw(self, lease: Object | None, now: float) -> None:
        """Take over the Lease as it was just read; None where there is no Lease."""
        if lease is None or self._seen is None or _version(lease) != _version(self._seen):
            self._seen_at = now
        self._seen = lease
        if lease is not None and _spec(lease).get("holderIdentity") != self._identity:
            self._holds_until = float("-inf")

    def wish(self, now: float, wall: datetime) -> Object | None:
        """The Lease to write, to take or keep it; None while another holds it. It is new where it has no resourceVersion."""
        stamp = wall.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": 0,
        }
        if self._seen is None:
            metadata: Object = {"name": self._name, "namespace": self._namespace}
        else:
            old = _spec(self._seen)
            if old.get("holderIdentity") == self._identity:
                spec["acquireTime"] = old.get("acquireTime") or stamp
                spec["leaseTransitions"] = old.get("leaseTransitions") or 0
            elif not old.get("holderIdentity") or now >= self._seen_at + (old.get("leaseDurationSeconds") or 0):
                spec["leaseTransitions"] = (old.get("leaseTransitions") or 0) + 1
            else:
                return None
            metadata = self._seen["metadata"]
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def won(self, lease: Object, sent_at: float, now: float) -> None:
        """The wish was written. lease: as it is stored now. sent_at: when the write began."""
        self._seen = lease
        self._seen_at = now
        self._holds_until = sent_at + self._duration_s * HOLD_SHARE

    def resignation(self, now: float) -> Object | None:
        """Stop leading. Returns the Lease to write so that others may take it at once; None where this one did not lead."""
        led, self._holds_until = self.leads(now), float("-inf")
        if not led or self._seen is None:
            return None
        return {**self._seen, "spec": {**_spec(self._seen), "holderIdentity": "", "leaseDurationSeconds": 1}}


class Elector:
    """Runs work while this replica leads. One per process. end: ends the process, as `os._exit` does."""

    def __init__(
        self,
        kube: Kube,
        identity: str,
        namespace: str,
        name: str,
        duration_s: float,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._end = end
        self._read_s = duration_s * _READ_SHARE
        self._ending_s = duration_s * (1 - HOLD_SHARE)
        self._election = Election(identity, namespace, name, duration_s)

    @property
    def leads(self) -> bool:
        """Does this replica lead now?"""
        return self._election.leads(time.monotonic())

    def fence(self) -> float:
        """Seconds for which this replica certainly leads. `Kube.fenced` calls it before each write. Raises NotLeader."""
        left_s = self._election.holds_until - time.monotonic()
        if left_s <= 0:
            raise NotLeader("held back: this replica does not lead")
        return left_s

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: wait to lead, then run `work` until leading ends, and again.

        What `work` raises is raised here; RuntimeError when it ends by itself. When this is cancelled while leading, the
        Lease is given up after `work` has ended, so that another replica need not wait for it to expire.
        """
        while True:
            while not self.leads:
                await self._try()
                if not self.leads:
                    await asyncio.sleep(self._read_s)
            _log.info("leading")
            try:
                await self._lead(work)
            finally:
                await self._resign()
            _log.warning("leading no more")

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> None:
        tasks = (asyncio.ensure_future(work()), asyncio.create_task(self._renew()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if tasks[0] in done:
                raise RuntimeError("the leader's work ended by itself")
        finally:
            for task in tasks:
                task.cancel()
            # After this time another replica may lead.
            within_s = max(0.0, self._election.holds_until - time.monotonic()) + self._ending_s
            with must_end("the leader's work", within_s, self._end):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _renew(self) -> None:
        """Renew until this replica leads no more."""
        while self.leads:
            await asyncio.sleep(min(self._read_s, max(0.0, self._election.holds_until - time.monotonic())))
            remaining_s = self._election.holds_until - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await self._try()

    async def _try(self) -> None:
        """Read the Lease, and take or renew it where this candidate may. A failure is logged; the next reading tries again."""
        election = self._election
        try:
            try:
                lease = await self._kube.get(LEASES, self._name, self._namespace)
            except KubeNotFound:
                lease = None
            election.saw(lease, time.monotonic())
            sent_at = time.monotonic()
            wish = election.wish(sent_at, datetime.now(UTC))
            if wish is None:
                return
            write = self._kube.replace if "resourceVersion" in wish["metadata"] else self._kube.create
            election.won(await write(LEASES, wish, self._namespace), sent_at, time.monotonic())
        except KubeError as error:
            _log.warning("lease: %s", error)

    async def _resign(self) -> None:
        lease = self._election.resignation(time.monotonic())
        if lease is None:
            return
        try:
            async with asyncio.timeout(_RELEASE_S):
                await self._kube.replace(LEASES, lease, self._namespace)
        except (KubeError, TimeoutError) as error:
            _log.warning("lease could not be given up, it will run out: %s", error)


def _spec(lease: Object) -> Object:
    spec: Object = lease.get("spec") or {}
    return spec


def _version(lease: Object) -> str:
    version: str = lease["metadata"]["resourceVersion"]
    return version
