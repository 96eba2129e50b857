"""`sponge run`: its flags, its words, and its ways to end, as a real command."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knative_sponge.cli.run import Screen, options_from
from knative_sponge.errors import SettingError
from knative_sponge.local.cpu.procfs import descendants
from knative_sponge.local.demand_follower import Resized
from knative_sponge.settings import ServingSettings
from knative_sponge.wire.demand import DemandLine
from tests.local.waiting import wait_until

IMPORTS = "import os, signal, sys, time; from http.server import BaseHTTPRequestHandler, HTTPServer;"
SERVER = IMPORTS + (
    "print('model loaded', flush=True);"
    "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), BaseHTTPRequestHandler).serve_forever()"
)


def test_every_setting_is_a_flag_and_reads_as_its_annotation() -> None:
    values = {
        "slo": "500ms", "protocol": "v2", "max-batch": "8", "max-inflight": "2", "min-cores": "250m", "max-cores": "1500m",
        "cpu-limit": "burst", "min-memory": "1Mi", "max-memory": "1Gi", "late": "serve", "defer": "never",
        "objective": "0.99", "scaling": "hybrid", "cpu-hook": "/cpu", "priority": "7", "max-network-share": "0.5",
    }  # fmt: skip
    assert set(values) <= set(ServingSettings.names())
    argv = [word for name, value in values.items() for word in (f"--{name}", value)]
    settings = options_from([*argv, "--", "server"], Screen()).settings
    assert settings == ServingSettings.from_annotations({f"knative-sponge.dev/{n}": v for n, v in values.items()})


@pytest.mark.parametrize("name", ServingSettings.names())
def test_no_setting_lacks_its_flag(name: str) -> None:
    with pytest.raises(SettingError, match=f"^--{name}: "):
        options_from([f"--{name}", " ", "--", "server"], Screen())


def test_the_command_is_everything_after_the_dashes() -> None:
    options = options_from(["--port=0", "--", "server", "--port", "{port}", "--", "x"], Screen())
    assert options.command == ("server", "--port", "{port}", "--", "x")


def test_flags_of_this_machine(tmp_path: Path) -> None:
    profile, saved = tmp_path / "p.json", tmp_path / "saved.json"
    profile.write_text('{"version": 1, "params": {"gamma": 0.1, "delta": 0, "epsilon": 0, "eta": 0}}')
    line = (
        "--port 81 --server-port 82 --admin-port 83 --metrics-port 84 --name ocr --ready-path /up --host ::1 "
        "--fixed-cores 500m --cfs-period 10ms --start-timeout 3s --ready-timeout 4s --grace 2s --slo 1s"
    )
    files = ["--profile", str(profile), "--save-profile", str(saved)]
    options = options_from([*line.split(), *files, "--", "server"], Screen())
    assert (options.port, options.server_port, options.host) == (81, 82, "::1")
    assert (options.admin_port, options.metrics_port, options.name) == (83, 84, "ocr")
    assert (options.fixed_cores, options.cfs_period_s) == (0.5, 0.01)
    assert (options.profile, options.save_profile) == (profile, saved)
    assert (options.ready_path, options.ready_timeout_s) == ("/up", 4.0)
    assert (options.start_timeout_s, options.grace_s) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("--port x -- s", "--port"),
        ("--port 70000 -- s", "--port"),
        ("--server-port -1 -- s", "--server-port"),
        ("--fixed-cores lots -- s", "--fixed-cores"),
        ("--fixed-cores 0 -- s", "--fixed-cores"),
        ("--cfs-period 2s -- s", "--cfs-period"),
        ("--cfs-period 20 -- s", "--cfs-period"),
        ("--grace 0 -- s", "--grace"),
        ("--start-timeout never -- s", "--start-timeout"),
        ("--profile /no/such/file -- s", "--profile"),
        ("--min-cores 2 --max-cores 1 -- s", "--max-cores"),
        ("--admin-port x -- s", "--admin-port"),
        ("--metrics-port 70000 -- s", "--metrics-port"),
        ("--name a.b -- s", "--name"),
        ("--ready-path up -- s", "--ready-path"),
        ("--ready-timeout 0 -- s", "--ready-timeout"),
        ("--save-profile /no/such/folder/p.json --slo 1s -- s", "--save-profile"),
        ("--save-profile p.json -- s", "--save-profile"),
        ("--slo 1s", "COMMAND"),
        ("--slo 1s --", "COMMAND"),
    ],
)
def test_what_cannot_be_is_refused_by_the_flags_name(line: str, flag: str) -> None:
    with pytest.raises(SettingError, match=f"^{flag}: "):
        options_from(line.split(), Screen())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--slo -5ms -- s", "--slo: '-5ms' is not allowed; expected a duration above zero, such as 500ms or 2s"),
        ("--slo=-5ms -- s", "--slo: '-5ms' is not allowed; expected a duration above zero, such as 500ms or 2s"),
        ("--port -1 -- s", "--port: '-1' is not allowed; expected a TCP port, or 0 for a free one"),
        ("--slo -- s", "--slo: '' is not allowed; expected a duration above zero, such as 500ms or 2s"),
        ("--slo --port 80 -- s", "--slo: '' is not allowed; expected a duration above zero, such as 500ms or 2s"),
        ("--port -- s", "--port: '' is not allowed; expected N: public port; 0 takes a free one"),
        ("--cfs-period 5us -- s", "--cfs-period: '5us' is not allowed; expected a duration from 1ms to 1s"),
        ("--slow 5s -- s", "flag: '--slow' is not allowed; expected --slo"),
        ("-p 80 -- s", "flag: '-p' is not allowed; expected --port"),
        ("--quux 80 -- s", "flag: '--quux' is not allowed; expected one of those that --help lists"),
        (
            "--slo 1s mlserver start . --port 5",
            "COMMAND: 'mlserver start . --port 5' is not allowed; expected the model server's command after --: sponge run --",
        ),
    ],
)
def test_a_slip_is_answered_with_what_is_allowed(line: str, message: str) -> None:
    with pytest.raises(SettingError) as slip:
        options_from(line.split(), Screen())
    assert str(slip.value).startswith(message)


def test_a_message_repeats_no_more_than_a_few_lines_of_what_was_typed() -> None:
    for argv in ([f"--{'x' * 5000}"], ["y" * 5000]):
        with pytest.raises(SettingError) as slip:
            options_from(argv, Screen())
        assert len(str(slip.value)) < 600


class Terminal(io.TextIOWrapper):
    def __init__(self, tty: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")
        self._is_tty = tty

    def isatty(self) -> bool:
        return self._is_tty

    def text(self) -> str:
        self.seek(0)
        return self.read()


CHANGES = [
    Resized(0.4, 1.2, DemandLine(want=1.2, cores=0.4, rate=14.2, queued=12, running=1)),
    Resized(1.2, 1.0, DemandLine(want=1.0, cores=1.2, rate=9.0, queued=0, running=1)),
]


def test_a_file_gets_every_change_as_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(tty=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    screen = Screen()
    screen.resized(CHANGES[0])
    screen.output(b"server line\n")
    screen.resized(CHANGES[1])
    assert terminal.text() == (
        "sponge: cores 0.4 → 1.2 (12 queued, rate 14.2/s)\nserver line\nsponge: cores 1.2 → 1 (0 queued, rate 9.0/s)\n"
    )


def test_a_terminal_keeps_the_newest_change_below_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(tty=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    screen = Screen()
    screen.resized(CHANGES[0])
    screen.output(b"server line\n")
    screen.resized(CHANGES[1])
    screen.close()
    first, second = "cores 0.4 → 1.2 (12 queued, rate 14.2/s)", "cores 1.2 → 1 (0 queued, rate 9.0/s)"
    wipe = "\r\x1b[K"
    assert terminal.text() == f"{first}{wipe}server line\n{first}{wipe}{second}\n"


class Command:
    """`sponge run` with the fake proxy in the proxy's place."""

    def __init__(self, folder: Path, server: list[str], *flags: str, mood: str = "") -> None:
        self.log_file = folder / "log"
        self.err = folder / "err"
        code = (
            "import dataclasses, os, sys; from knative_sponge.cli import main, run;"
            "real = run.options_from;"
            "fake = (sys.executable, '-m', 'tests.local.fake_proxy');"
            "env = {name: value for name, value in os.environ.items() if name.startswith('FAKE_')};"
            "run.options_from = lambda *args: dataclasses.replace(real(*args), proxy_command=fake, env=env);"
            "sys.exit(main.main(sys.argv[1:]))"
        )
        env = {"FAKE_PROXY_LOG": str(self.log_file), "FAKE_PROXY_CORES": "1", "FAKE_PROXY_MOOD": mood}
        argv = [sys.executable, "-c", code, "run", "--port", "0", *flags, "--", *server]
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(argv, stderr=err, env=os.environ | env)

    def says(self, text: str) -> None:
        wait_until(lambda: text in self.err.read_text(), f"{text!r} in {self.err}")

    def events(self) -> list[str]:
        return [json.loads(line)[0] for line in self.log_file.read_text().splitlines()]

    def ends(self) -> int:
        return self.process.wait(timeout=60)


@pytest.fixture
def commands() -> Iterator[list[Command]]:
    started: list[Command] = []
    yield started
    for command in started:
        command.process.kill()
        command.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_proxy_then_asks_the_server_and_passes_its_status_on(
    tmp_path: Path, commands: list[Command], number: signal.Signals
) -> None:
    server = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(42)); {SERVER}"
    commands.append(command := Command(tmp_path, [sys.executable, "-c", server], "--slo", "500ms"))
    command.says("serving on http://127.0.0.1:")
    command.process.send_signal(number)
    assert command.ends() == 42
    assert "drained" in command.events()
    written = command.err.read_text()
    assert "model loaded\n" in written
    assert "cores set by" in written
    assert "core-seconds allocated" in written.splitlines()[-1]
    assert "Traceback" not in written


def test_a_second_signal_kills_both(tmp_path: Path, commands: list[Command]) -> None:
    command = Command(tmp_path, [sys.executable, "-c", SERVER], "--slo", "1s", "--grace", "600s", mood="never ends")
    commands.append(command)
    command.says("serving on")
    command.process.terminate()
    wait_until(lambda: "draining" in command.events(), "the first signal has reached the proxy")
    command.process.terminate()
    assert command.ends() == 128 + signal.SIGKILL


def test_a_signal_during_the_start_ends_it(tmp_path: Path, commands: list[Command]) -> None:
    commands.append(command := Command(tmp_path, ["sh", "-c", "echo loading; exec sleep 60"]))
    command.says("loading")
    command.process.terminate()
    assert command.ends() == 128 + signal.SIGTERM


def is_server(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"model loaded" in words and b"guardian.py" not in words


@pytest.mark.parametrize(("status", "passed"), [(5, 5), (0, 1)])
def test_a_server_that_ends_by_itself_ends_the_command(
    tmp_path: Path, commands: list[Command], status: int, passed: int
) -> None:
    server = f"import signal, sys; signal.signal(signal.SIGHUP, lambda *_: (print('had enough'), sys.exit({status})));"
    commands.append(command := Command(tmp_path, [sys.executable, "-c", server + SERVER], "--ready-path", "none"))
    command.says("serving on")
    (pid,) = (process.pid for process in descendants(command.process.pid) if is_server(process.pid))
    os.kill(pid, signal.SIGHUP)
    assert command.ends() == passed
    written = command.err.read_text()
    assert f"the model server ended with status {status}; its last lines:\nmodel loaded\nhad enough" in written


def test_a_server_that_cannot_start_is_a_failure_in_words(tmp_path: Path, commands: list[Command]) -> None:
    commands.append(command := Command(tmp_path, ["/no/such/server"]))
    assert command.ends() == 127
    written = command.err.read_text()
    assert "before it accepted a connection, the model server ended with status 127" in written
    assert "cannot start '/no/such/server': No such file or directory" in written
    assert "Traceback" not in written


def test_a_server_that_ends_at_once_passes_its_status_on(tmp_path: Path, commands: list[Command]) -> None:
    commands.append(command := Command(tmp_path, ["sh", "-c", "exit 7"]))
    assert command.ends() == 7


def test_a_proxy_that_fails_is_no_fault_of_the_server(tmp_path: Path, commands: list[Command]) -> None:
    commands.append(command := Command(tmp_path, [sys.executable, "-c", SERVER], "--slo", "1s"))
    command.says("serving on")
    (pid,) = (process.pid for process in descendants(command.process.pid) if is_fake_proxy(process.pid))
    os.kill(pid, signal.SIGKILL)
    assert command.ends() == 1
    assert "the proxy ended by signal 9" in command.err.read_text()


def is_fake_proxy(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"tests.local.fake_proxy" in words and b"guardian.py" not in words and b"dataclasses" not in words


def test_an_address_that_cannot_be_had_is_told_by_its_flag(tmp_path: Path, commands: list[Command]) -> None:
    commands.append(command := Command(tmp_path, [sys.executable, "-c", SERVER], "--host", "192.0.2.1"))
    assert command.ends() == 2
    assert (
        "sponge run: --host: '192.0.2.1' is not allowed; expected an address of this machine" in command.err.read_text()
    )


@pytest.mark.parametrize("flags", [(), ("--slo", "1s")])
def test_without_an_slo_it_says_what_does_not_happen(
    tmp_path: Path, commands: list[Command], flags: tuple[str, ...]
) -> None:
    commands.append(command := Command(tmp_path, [sys.executable, "-c", SERVER], *flags))
    command.says("state http://")
    assert ("no --slo: requests have no deadlines, are not batched" in command.err.read_text()) == (not flags)


def test_a_broken_profile_is_found_before_the_server_is_started(tmp_path: Path, commands: list[Command]) -> None:
    (tmp_path / "p.json").write_text('{"version": 1}')
    server = ["touch", str(tmp_path / "started")]
    commands.append(command := Command(tmp_path, server, "--slo", "1s", "--profile", str(tmp_path / "p.json")))
    assert command.ends() == 2
    assert "--profile: " in command.err.read_text()
    assert not (tmp_path / "started").exists()
