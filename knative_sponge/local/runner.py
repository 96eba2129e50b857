"""A model server behind the proxy on this machine, its cores following demand; serves no request itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Awaitable
from dataclasses import replace
from types import TracebackType
from typing import Self

from knative_sponge.core.quantity import format_cores
from knative_sponge.errors import SettingError, SpongeError
from knative_sponge.local.cpu.choice import choose_control
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.follow import CoresRange, Follower
from knative_sponge.local.history import CoresHistory
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.ports import Ports, wait_accepting
from knative_sponge.local.process import ChildTree
from knative_sponge.local.proxy_env import LOOPBACK, proxy_env
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.http import STATE_PATH, bracketed


class ServiceError(SpongeError):
    """The model server or the proxy did not start; the message ends with its last lines of output."""


class LocalService:
    """Async context manager: serving inside the block, everything gone after it.

    In order: cores control, model server (held from its first instruction, at the most cores allowed so that it loads
    fast and sizes its thread pools for growth), proxy, then the control loop. Times in the history are seconds since
    the service was ready; allocated cores count from then on.
    """

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self.url = ""
        """Where clients send requests, once inside the block."""
        self.state_url = ""
        """The proxy's own view: queue, sizes, latency model."""
        self.metrics_url = ""
        """Prometheus metrics of the proxy."""
        self._control: CpuControl | None = None
        self._server: ChildTree | None = None
        self._proxy: ChildTree | None = None
        self._follower: asyncio.Task[None] | None = None
        self._history = CoresHistory()
        self._ready_s: float | None = None
        self._stopped_s: float | None = None
        self._used_s = 0.0
        self._used_before_s = 0.0
        self._throttled_s = 0.0
        self._server_status: int | None = None
        self._stop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises SettingError for what cannot be set here, ServiceError when a program does not come up."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def cores(self) -> float:
        """The size in force, or the last one."""
        return self._history.steps[-1][1] if self._history.steps else 0.0

    @property
    def cores_history(self) -> list[tuple[float, float]]:
        """(seconds since ready, cores in force from then on), oldest first."""
        return list(self._history.steps)

    @property
    def follows(self) -> bool:
        """Whether its cores follow demand; not with a fixed size, without `slo`, or with equal bounds."""
        return self._follower is not None

    @property
    def stopping(self) -> bool:
        """Whether `stop` has begun."""
        return self._stop is not None

    def core_seconds(self) -> float:
        """Core-seconds allocated since ready."""
        return self._history.core_seconds(self._now())

    def used_core_seconds(self) -> float:
        """Core-seconds the model server really used since ready."""
        self._read_usage()
        return self._used_s - self._used_before_s

    def throttled_s(self) -> float:
        """Seconds, summed over CPUs, for which a quota held it back, loading included; 0 where that is not counted."""
        self._read_usage()
        return self._throttled_s

    @property
    def server_status(self) -> int | None:
        """The model server's exit status (128 + signal if one ended it), None before its end."""
        return self._server_status

    async def wait(self) -> str:
        """Until the model server or the proxy ends by itself; says which and how. Neither is started again."""
        assert self._server is not None
        assert self._proxy is not None
        server, proxy = asyncio.create_task(self._server.wait()), asyncio.create_task(self._proxy.wait())
        follower = set() if self._follower is None else {self._follower}
        try:
            await asyncio.wait({server, proxy} | follower, return_when=asyncio.FIRST_COMPLETED)
            for task in follower:
                if task.done():
                    task.result()  # it never ends by itself: raises what broke it
            if server.done():
                self._server_status = server.result()
                return _ended("the model server", server.result(), self._server)
            return _ended("the proxy", proxy.result(), self._proxy)
        finally:
            server.cancel()
            proxy.cancel()

    def kill(self) -> None:
        """End both programs at once, without drain; a `stop` under way then returns soon."""
        for child in (self._proxy, self._server):
            if child is not None:
                child.kill()

    async def stop(self) -> None:
        """The proxy drains and ends, then the model server, each killed after the grace; then the control is removed.

        Called again, or cancelled, it goes on as it was. Until the proxy is gone, demand is followed.
        """
        if self._stop is None:
            self._stop = asyncio.create_task(self._end())
        await asyncio.shield(self._stop)

    async def _end(self) -> None:
        grace_s = self.options.grace_s
        if self._proxy is not None:
            await self._proxy.stop(grace_s)
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        self._stopped_s = time.monotonic()
        if self._server is not None:
            self._read_usage()
            self._server_status = await self._server.stop(grace_s)
            self._read_usage()
        if self._control is not None:
            control, self._control = self._control, None
            try:
                await asyncio.to_thread(control.close)
            except OSError as error:
                self.options.say(f"{control.name} could not be removed: {error}")

    async def _start(self) -> None:
        options = self.options
        control = self._control = self._open_control()
        bounds = self._bounds(control)
        settings = replace(options.settings, min_cores=bounds.low, max_cores=bounds.high)
        ports = Ports.choose(options.host, public=options.port, server=options.server_port)

        cores = control.apply(bounds.high)
        self._server = await ChildTree.start(
            [word.replace("{port}", str(ports.server)) for word in options.command],
            env={**os.environ, "PORT": str(ports.server)},
            sink=options.output,
            entry=control.entry,
        )
        control.attach(self._server.guardian)
        await self._up("the model server", self._server, wait_accepting(LOOPBACK, ports.server))

        token = secrets.token_urlsafe(32)
        self._proxy = await ChildTree.start(
            options.proxy_command,
            env=proxy_env(options, settings, ports, control, cores, token),
            sink=options.output,
        )
        host = _reachable(options.host)
        for port in (ports.public, ports.admin):
            await self._up("the proxy", self._proxy, wait_accepting(host, port))

        self._read_usage()
        self._used_before_s = self._used_s
        self._ready_s = time.monotonic()
        self._history.record(0.0, cores)
        name = bracketed(host)
        self.url = f"http://{name}:{ports.public}"
        self.state_url = f"http://{name}:{ports.admin}{STATE_PATH}"
        self.metrics_url = f"http://{name}:{ports.metrics}/metrics"
        if settings.slo_s is not None and bounds.low < bounds.high:
            follower = Follower(
                control,
                AdminClient(host, ports.admin, token),
                bounds,
                self._history,
                cores=cores,
                clock=self._now,
                resized=options.resized,
                trouble=self._trouble,
            )
            self._follower = asyncio.create_task(follower.run())

    def _open_control(self) -> CpuControl:
        if self.options.control is not None:
            return self.options.control
        choice = choose_control(self.options.cfs_period_s)
        self.options.say(choice.reason)
        return choice.control

    def _bounds(self, control: CpuControl) -> CoresRange:
        """What the user allows, within what this process may use, on the control's grid."""
        settings, fixed = self.options.settings, self.options.fixed_cores
        most = min(control.limit_cores, float(len(os.sched_getaffinity(0))))
        low, high = (fixed, fixed) if fixed is not None else (settings.min_cores, settings.max_cores or most)
        if low > most:
            name = "min-cores" if fixed is None else "fixed-cores"
            raise SettingError(name, format_cores(low), f"at most {format_cores(most)}, all that this process may use")
        if high > most:
            self.options.say(f"max-cores {high:g} lowered to {most:g}, all that this process may use")
        grid = CoresRange(min(control.granularity_cores, most), most)
        sizes = CoresRange(grid.size(low, control.granularity_cores), grid.size(high, control.granularity_cores))
        if fixed is not None and sizes.low - fixed > 0.001:
            self.options.say(f"fixed-cores {fixed:g} becomes {sizes.low:g}: {control.name} sets nothing finer")
        return sizes

    async def _up(self, what: str, child: ChildTree, accepting: Awaitable[None]) -> None:
        """Wait for the first of: it accepts, it has ended, the time is over."""
        accepted, ended = asyncio.ensure_future(accepting), asyncio.ensure_future(child.wait())
        try:
            await asyncio.wait(
                {accepted, ended}, timeout=self.options.start_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if ended.done():
                raise ServiceError(_ended(f"before it accepted a connection, {what}", ended.result(), child))
            if not accepted.done():
                raise ServiceError(
                    f"{what} did not accept a connection in {self.options.start_timeout_s:g} s{_lines(child)}"
                )
        finally:
            accepted.cancel()
            ended.cancel()
            await asyncio.wait({accepted, ended})

    def _read_usage(self) -> None:
        """Usage read from /proc shrinks when the tree ends, and a removed group has none: keep the largest seen."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._used_s = max(self._used_s, self._control.usage_s())
                self._throttled_s = max(self._throttled_s, self._control.throttled_s())

    def _trouble(self, text: str) -> None:
        if not self.stopping:
            self.options.say(text)

    def _now(self) -> float:
        """Seconds since ready; stands still once stopped."""
        if self._ready_s is None:
            return 0.0
        return (time.monotonic() if self._stopped_s is None else self._stopped_s) - self._ready_s


def _reachable(host: str) -> str:
    """The address to reach a listener on `host` from this machine."""
    return {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)


def _ended(what: str, status: int, child: ChildTree) -> str:
    how = f"by signal {status - 128}" if status > 128 else f"with status {status}"
    return f"{what} ended {how}{_lines(child)}"


def _lines(child: ChildTree) -> str:
    lines = child.last_lines()
    return f"; its last lines:\n{lines}\n" if lines else ""
