"""`sponge run`: serve a model server behind the proxy on this machine; parses, shows and passes signals on."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from knative_sponge.cli.flags import COMMAND, split
from knative_sponge.core.quantity import format_cores, format_duration, parse_duration_s, parse_quantity
from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.cfs_quota import DEFAULT_PERIOD_S
from knative_sponge.local.demand_follower import Resized
from knative_sponge.local.options import NO_READY_PATH, LocalOptions
from knative_sponge.local.process import ServiceError
from knative_sponge.local.runner import LocalService
from knative_sponge.local.servers import READY_PATHS
from knative_sponge.settings import ServingSettings
from knative_sponge.settings.serving import ANNOTATION_PREFIX

_USAGE: Final = "sponge run"
_PROXY_LIBRARIES: Final = ("starlette", "uvicorn", "uvloop", "httptools", "msgspec", "prometheus_client")
_EPILOG: Final = """\
The command gets its port as {port} in any word, as PORT in its environment, and as the variables that well-known
servers read (docs/servers.md). It stays in the foreground: when it ends, sponge ends, with its exit status (1 if that is
0). Ctrl-C or SIGTERM drains the proxy, then ends the command; a second one kills both.

example: sponge run --slo 500ms -- python server.py --port {port}
"""


class Screen:
    """What people see on standard error. A terminal shows only the newest status line, at the end; a file gets them all."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._status = ""

    def output(self, data: bytes) -> None:
        """Write bytes of the programs, unchanged."""
        self._clear()
        sys.stderr.buffer.write(data)
        if data.endswith(b"\n"):
            self._draw()
        sys.stderr.buffer.flush()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.output(f"sponge: {text.rstrip()}\n".encode())

    def resized(self, change: Resized) -> None:
        """Show a change of size; on a terminal the next one replaces it."""
        demand = change.demand
        text = f"cores {change.before:.3g} → {change.after:.3g} ({demand.queued} queued, rate {demand.rate:.1f}/s)"
        if not self._tty:
            self.say(text)
            return
        self._clear()
        self._status = text
        self._draw()
        sys.stderr.buffer.flush()

    def close(self) -> None:
        """Leave the newest status line on the screen, and the cursor below it."""
        if self._status:
            self._status = ""
            sys.stderr.buffer.write(b"\n")
            sys.stderr.buffer.flush()

    def _clear(self) -> None:
        if self._status:
            sys.stderr.buffer.write(b"\r\x1b[K")

    def _draw(self) -> None:
        sys.stderr.buffer.write(self._status.encode())


def main(argv: Sequence[str]) -> int:
    """Serve until a signal or until the command ends; returns the exit status. Raises SettingError that names the flag."""
    screen = Screen()
    try:
        options = options_from(argv, screen)
        _check_libraries()
        return asyncio.run(_serve(options))
    except ServiceError as error:
        print(f"sponge run: {error}", file=sys.stderr)
        return error.status
    except SettingError as error:
        raise _as_typed(error) from error
    finally:
        screen.close()


def _check_libraries() -> None:
    """Raises ModuleNotFoundError for a library of the proxy, whose own process would miss it only after the server's start."""
    for name in _PROXY_LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def options_from(argv: Sequence[str], screen: Screen) -> LocalOptions:
    """The options that the arguments ask for. SettingError names the flag; argparse exits with 2."""
    parser = _parser()
    words = split(argv, _allowed(parser), _USAGE)
    args = vars(parser.parse_args(words.flags))
    named = {ANNOTATION_PREFIX + name: args[name] for name in ServingSettings.names() if args[name] is not None}
    try:
        settings = ServingSettings.from_annotations(named)
        return LocalOptions(
            command=words.command,
            settings=settings,
            host=args["host"],
            port=_port("port", args["port"]),
            server_port=_port("server-port", args["server-port"]),
            admin_port=_port("admin-port", args["admin-port"]),
            metrics_port=_port("metrics-port", args["metrics-port"]),
            name=args["name"] or "",
            ready_path=args["ready-path"],
            fixed_cores=None if args["fixed-cores"] is None else _cores("fixed-cores", args["fixed-cores"]),
            cfs_period_s=_duration("cfs-period", args["cfs-period"]),
            profile=None if args["profile"] is None else Path(args["profile"]),
            save_profile=None if args["save-profile"] is None else Path(args["save-profile"]),
            start_timeout_s=_duration("start-timeout", args["start-timeout"]),
            ready_timeout_s=_duration("ready-timeout", args["ready-timeout"]),
            grace_s=_duration("grace", args["grace"]),
            output=screen.output,
            say=screen.say,
            resized=screen.resized,
        )
    except SettingError as error:
        raise _as_typed(error) from error


def _as_typed(error: SettingError) -> SettingError:
    """The same, by the name of the flag."""
    if error.name == "command":
        return SettingError(COMMAND, error.value, error.allowed)
    flag = "--" + error.name.removeprefix(ANNOTATION_PREFIX)
    return SettingError(flag if flag in _allowed(_parser()) else error.name, error.value, error.allowed)


def _allowed(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Of every flag that has a value, what it may be."""
    settings = {f"--{name}": _setting_text(name) for name in ServingSettings.names()}
    return {
        flag: settings.get(flag, f"{action.metavar}: {action.help}")
        for action in parser._actions
        for flag in action.option_strings
        if action.nargs != 0
    }


def _setting_text(name: str) -> str:
    (item,) = (item for own, item in zip(ServingSettings.names(), fields(ServingSettings), strict=True) if own == name)
    return str(item.metadata["parse"].__doc__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sponge run",
        usage=f"{_USAGE} [FLAGS] -- COMMAND ARGS...",
        description="Serve a model server behind the deadline-aware proxy on this machine, its cores set in place.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    here = parser.add_argument_group("on this machine")

    def add(name: str, metavar: str, default: str | None, text: str) -> None:
        shown = "" if default is None else f" (default {default})"
        here.add_argument(f"--{name}", dest=name, metavar=metavar, default=default, help=text + shown)

    add("host", "ADDRESS", "127.0.0.1", "where clients reach the proxy")
    add("port", "N", "8080", "public port; 0 takes a free one")
    add("server-port", "N", "0", "port of the model server; 0 takes a free one, or the one that the server opens")
    add("admin-port", "N", "0", "port of the state; 0 takes a free one")
    add("metrics-port", "N", "0", "port of the metrics; 0 takes a free one")
    add(
        "name", "NAME", None, "of the service, in the source of its events (default: this machine's name with the port)"
    )
    add(
        "ready-path",
        "PATH",
        None,
        f"path that says when the command is ready, or {NO_READY_PATH} (default: {', '.join(READY_PATHS)} or its port)",
    )
    add("fixed-cores", "CORES", None, "hold this size and follow no demand")
    add(
        "cfs-period",
        "DURATION",
        format_duration(DEFAULT_PERIOD_S),
        "over which a CPU quota counts; shorter means shorter stalls",
    )
    add("profile", "FILE", None, "latency profile (JSON) to start warm from")
    add("save-profile", "FILE", None, "where to keep what was learned, for --profile")
    add("start-timeout", "DURATION", "60s", "until the command must accept connections")
    add("ready-timeout", "DURATION", "600s", "from then until it must be ready")
    add("grace", "DURATION", "10s", "between SIGTERM and SIGKILL")
    like_annotations = parser.add_argument_group("as the annotations of the same names")
    for name, item in zip(ServingSettings.names(), fields(ServingSettings), strict=True):
        shown = "" if item.default is None else f" (default {item.metadata['show'](item.default)})"
        text = item.metadata["parse"].__doc__ + shown
        like_annotations.add_argument(f"--{name}", dest=name, metavar="VALUE", help=text)
    return parser


def _duration(name: str, text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise SettingError(name, text, "a duration, such as 20ms or 1.5s") from error


def _cores(name: str, text: str) -> float:
    try:
        return parse_quantity(text)
    except ValueError as error:
        raise SettingError(name, text, "a CPU quantity, such as 250m or 2") from error


def _port(name: str, text: str) -> int:
    if not text.isdecimal():
        raise SettingError(name, text, "a TCP port, or 0 for a free one")
    return int(text)


async def _serve(options: LocalOptions) -> int:
    service = LocalService(options)
    body = asyncio.create_task(_until_ended(service))

    def ask_to_end() -> None:
        if service.stopping:
            service.kill()
        else:
            body.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_end)
    try:
        await body
    except asyncio.CancelledError:
        return 130 if service.server_status is None else service.server_status
    finally:
        if service.cores_history:
            allocated, used = service.core_seconds(), service.used_core_seconds()
            options.say(f"{allocated:.1f} core-seconds allocated, {used:.1f} used")
    # A server that was ended because the proxy had failed is not to blame.
    return 1 if service.proxy_status is not None else service.server_status or 1


async def _until_ended(service: LocalService) -> None:
    options = service.options
    async with service:
        size = f"{format_cores(service.cores)} cores" + ("" if service.follows else ", fixed")
        options.say(f"serving on {service.url} with {size}")
        if options.settings.slo_s is None:
            options.say("no --slo: requests have no deadlines, are not batched, and the cores stay as they are")
        addresses = service.addresses
        options.say(
            f"state {addresses.state_url}, metrics {addresses.metrics_url}, model server {addresses.server_url}"
        )
        options.say(await service.wait())
