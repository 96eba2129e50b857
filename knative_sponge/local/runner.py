"""A model server behind the proxy on this machine, its cores following demand; serves no request itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from knative_sponge.core.quantity import format_cores, format_duration
from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.choice import choose_control
from knative_sponge.local.cpu.control import CpuControl
from knative_sponge.local.demand_follower import CoresRange, Follower
from knative_sponge.local.history import CoresHistory
from knative_sponge.local.listening import PortSearch, listening, ports_in_words
from knative_sponge.local.options import NO_READY_PATH, LocalOptions
from knative_sponge.local.ports import LOOPBACK, Ports, wait_accepting
from knative_sponge.local.process import ChildTree
from knative_sponge.local.profile_file import ProfileSaver
from knative_sponge.local.proxy_env import proxy_env
from knative_sponge.local.readiness import wait_ready
from knative_sponge.local.servers import launch
from knative_sponge.local.starting import ACCEPT, ReadyWait, ended_how, up
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.http import STATE_PATH, bracketed


@dataclass(frozen=True, slots=True)
class Addresses:
    """url: where clients send requests. state_url: the proxy's queue, sizes and latency model. metrics_url: its metrics.
    server_url: the model server itself, past the proxy."""

    url: str = ""
    state_url: str = ""
    metrics_url: str = ""
    server_url: str = ""

    @classmethod
    def of(cls, host: str, ports: Ports) -> Addresses:
        """Those of a proxy that listens on `host`."""
        name = bracketed(host)
        return cls(
            f"http://{name}:{ports.public}",
            f"http://{name}:{ports.admin}{STATE_PATH}",
            f"http://{name}:{ports.metrics}/metrics",
            f"http://{LOOPBACK}:{ports.server}",
        )


class _Clock:
    """Seconds since the service was ready: 0 before, and the last value once it has stopped."""

    def __init__(self) -> None:
        self._ready_s: float | None = None
        self._stopped_s: float | None = None

    def start(self) -> None:
        self._ready_s = time.monotonic()

    def stop(self) -> None:
        self._stopped_s = time.monotonic()

    def now(self) -> float:
        if self._ready_s is None:
            return 0.0
        return (time.monotonic() if self._stopped_s is None else self._stopped_s) - self._ready_s


class _CpuUsage:
    """Core-seconds that a control has measured. The largest reading counts, as readings fall when the tree ends."""

    def __init__(self, control: CpuControl) -> None:
        self._control: CpuControl | None = control
        self._most_s = 0.0

    def read_s(self) -> float:
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._most_s = max(self._most_s, self._control.usage_s())
        return self._most_s

    def finish(self) -> None:
        """Take the last reading. Later ones could be those of another process with the same pid."""
        self.read_s()
        self._control = None


class LocalService:
    """Async context manager: serving inside the block, everything gone after it.

    It starts, in this order: the control of cores, the model server, the proxy once that server is ready, the follower of its
    demand. The model server is held to its cores from its first instruction. It starts with the most cores allowed and keeps
    them until it is ready, so that it loads fast and sizes its thread pools for growth. Times in the history are seconds since
    the service was ready; allocated cores count from then on.
    """

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self.addresses = Addresses()
        """Empty before the service is ready."""
        self._control: CpuControl | None = None
        self._server: ChildTree | None = None
        self._proxy: ChildTree | None = None
        self._follower: asyncio.Task[None] | None = None
        self._history = CoresHistory()
        self._clock = _Clock()
        self._usage: _CpuUsage | None = None
        self._used_before_s = 0.0
        self._server_status: int | None = None
        self._saver: ProfileSaver | None = None
        self._saving: asyncio.Task[None] | None = None
        self._proxy_status: int | None = None
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
    def url(self) -> str:
        """Where clients send requests, without path; empty before the service is ready."""
        return self.addresses.url

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
        """Whether the cores follow demand. They do not with a fixed size, without `slo`, or with equal bounds."""
        return self._follower is not None

    @property
    def stopping(self) -> bool:
        """Whether `stop` has begun."""
        return self._stop is not None

    def core_seconds(self) -> float:
        """Core-seconds allocated since ready."""
        return self._history.core_seconds(self._clock.now())

    def used_core_seconds(self) -> float:
        """Core-seconds that the model server really used since ready."""
        return 0.0 if self._usage is None else self._usage.read_s() - self._used_before_s

    @property
    def server_status(self) -> int | None:
        """The model server's exit status (128 + signal if a signal ended it); None before its end."""
        return self._server_status

    @property
    def proxy_status(self) -> int | None:
        """The proxy's exit status when it ended by itself, which `wait` told; else None."""
        return self._proxy_status

    async def wait(self) -> str:
        """Wait until the model server or the proxy ends by itself, and say which one and how. Neither is started again."""
        assert self._server is not None
        assert self._proxy is not None
        server, proxy = asyncio.create_task(self._server.wait()), asyncio.create_task(self._proxy.wait())
        follower = set() if self._follower is None else {self._follower}
        try:
            await asyncio.wait({server, proxy} | follower, return_when=asyncio.FIRST_COMPLETED)
            for task in follower:
                if task.done():
                    task.result()  # it ends only by an error, which this raises
            if server.done():
                self._server_status = server.result()
                return ended_how("the model server", server.result(), self._server)
            self._proxy_status = proxy.result()
            return ended_how("the proxy", proxy.result(), self._proxy)
        finally:
            server.cancel()
            proxy.cancel()

    def kill(self) -> None:
        """End both programs at once, without drain. A `stop` that is under way then returns soon."""
        for child in (self._proxy, self._server):
            if child is not None:
                child.kill()

    async def stop(self) -> None:
        """End the proxy, which drains first, then the model server, then the control of cores.

        Each program is killed when it has not ended after the grace. Cores follow demand until the proxy is gone. A second
        call waits for the first; a cancelled call does not end what it began.
        """
        if self._stop is None:
            self._stop = asyncio.create_task(self._end())
        await asyncio.shield(self._stop)

    async def _end(self) -> None:
        grace_s = self.options.grace_s
        if self._saver is not None and self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
            await self._saver.finish()
        if self._proxy is not None:
            await self._proxy.stop(grace_s)
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        self._clock.stop()
        if self._server is not None and self._usage is not None:
            self._usage.read_s()
            self._server_status = await self._server.stop(grace_s)
            self._usage.finish()
        if self._control is not None:
            control, self._control = self._control, None
            try:
                await asyncio.to_thread(control.close)
            except OSError as error:
                self.options.say(f"{control.name} could not be removed: {error}")

    async def _start(self) -> None:
        options = self.options
        control = self._control = self._open_control()
        usage = self._usage = _CpuUsage(control)
        bounds = self._bounds(control)
        settings = replace(options.settings, min_cores=bounds.low, max_cores=bounds.high)
        ports = Ports.choose(
            options.host,
            public=options.port,
            server=options.server_port,
            admin=options.admin_port,
            metrics=options.metrics_port,
        )

        cores = control.apply(bounds.high)
        told = launch(options.command, ports.server, os.environ)
        if told.note:
            options.say(told.note)
        with ports.held(options.host):
            server = self._server = await ChildTree.start(
                told.command, env={**os.environ, **told.env}, sink=options.output, entry=control.entry
            )
            control.attach(server.guardian)
            ports = replace(ports, server=await self._listens(server, ports))
            # No size is followed before the server is ready: it loads on all the cores that it may have.
            ready_path = await self._loaded(server, ports.server)

        token = secrets.token_urlsafe(32)
        proxy = self._proxy = await ChildTree.start(
            options.proxy_command,
            env=proxy_env(options, settings, ports, control, cores, token, ready_path),
            sink=options.output,
        )
        host = _reachable(options.host)
        for port in (ports.public, ports.admin):
            await up("the proxy", proxy, wait_accepting(host, port), options.start_timeout_s, lambda: ACCEPT)

        self._used_before_s = usage.read_s()
        self._clock.start()
        self._history.record(0.0, cores)
        self.addresses = Addresses.of(host, ports)
        if settings.slo_s is not None and bounds.low < bounds.high:
            follower = Follower(
                control,
                AdminClient(host, ports.admin, token),
                bounds,
                self._history,
                cores=cores,
                clock=self._clock.now,
                resized=options.resized,
                trouble=self._trouble,
            )
            self._follower = asyncio.create_task(follower.run())
        if options.save_profile is not None:
            self._saver = ProfileSaver(AdminClient(host, ports.admin), options.save_profile, self._trouble, options.say)
            self._saving = asyncio.create_task(self._saver.run())

    async def _listens(self, server: ChildTree, ports: Ports) -> int:
        """The port that the model server listens on, as soon as it accepts connections there."""
        options = self.options
        may_differ = options.server_port == 0
        search = PortSearch(LOOPBACK, ports.server, server.guardian, ports.public, may_differ, options.say)

        def failure() -> str:
            others = ports_in_words(listening(server.guardian))
            return f"{ACCEPT} in {options.start_timeout_s:g} s on port {ports.server}, which it was told{others}"

        return await up("the model server", server, search.run(), options.start_timeout_s, failure)

    async def _loaded(self, server: ChildTree, port: int) -> str | None:
        """Wait until the model server is ready; the path that says so, None when it accepting connections says it."""
        options = self.options
        if options.ready_path == NO_READY_PATH:
            return None
        wait = ReadyWait(port, options.say)

        def failure() -> str:
            return f"was not ready in {format_duration(options.ready_timeout_s)}: {wait.last} (--ready-path chooses a path)"

        waiting = wait_ready(LOOPBACK, port, options.ready_path, wait.heard)
        return await up("the model server", server, waiting, options.ready_timeout_s, failure, "was ready")

    def _open_control(self) -> CpuControl:
        if self.options.control is not None:
            return self.options.control
        choice = choose_control(self.options.cfs_period_s)
        self.options.say(choice.reason)
        return choice.control

    def _bounds(self, control: CpuControl) -> CoresRange:
        """The bounds that the user allows, within what this process may use, on the control's grid."""
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

    def _trouble(self, text: str) -> None:
        if not self.stopping:
            self.options.say(text)


def _reachable(host: str) -> str:
    """The address to reach a listener on `host` from this machine."""
    return {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)
