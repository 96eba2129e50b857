"""Every line of docs/servers.md, as it stands: the command is started, found, waited for, asked through the proxy and ended.

`make servers` installs the servers, each in an environment of its own; `make test` has the two of requirements/foreign.txt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from knative_sponge.local.servers import READY_PATHS
from tests.servers.catalogue import SERVERS, Server, as_json

ROOT = Path(__file__).parent.parent.parent
APPS = Path(__file__).parent / "apps"
DOCUMENTED = Path(__file__).parent / "documented.py"
PREFIX = os.environ.get("SPONGE_SERVERS", "")
FOREIGN = os.environ.get("SPONGE_FOREIGN_PYTHON", "")
ENDS = {0, 128 + signal.SIGTERM, 128 + signal.SIGABRT}
"""How servers end when they are asked to; Ray Serve aborts."""
SPONGE = [sys.executable, "-c", "import sys; from knative_sponge.cli.main import main; sys.exit(main())"]


def programs(server: Server, folder: Path) -> Path:
    """The folder with the server's programs."""
    if not server.environment:
        if not PREFIX:
            pytest.skip("make servers runs what only follows documentation")
        return documented(server, folder)
    found = Path(FOREIGN).parent if server.environment == "foreign" else Path(f"{PREFIX}{server.environment}") / "bin"
    if not (FOREIGN if server.environment == "foreign" else PREFIX):
        pytest.skip(f"needs the environment {server.environment!r} (make servers)")
    assert found.is_dir()
    return found


def documented(server: Server, folder: Path) -> Path:
    """A folder with a program of the server's name that behaves as the server is documented to."""
    words = server.command.split()
    name = words[words.index("-m") + 1] if words[0] == "python" else words[0]
    program = folder / "bin" / words[0]
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {DOCUMENTED} {name} "$@"\n')
    program.chmod(0o755)
    return program.parent


def status_of(url: str) -> int:
    """Of a GET through the proxy."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@contextmanager
def running(server: Server, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """`sponge run` before the server: where it serves, and what it said until then."""
    bin_folder = programs(server, folder)
    apps = folder / "apps"
    shutil.copytree(APPS, apps)
    shutil.copytree(ROOT / "tests" / "integration" / "mlserver_model", apps / "mlserver_model")
    program, *words = server.command.split()
    argv = [
        *SPONGE,
        "run",
        "--slo",
        "20s",
        "--port",
        "0",
        "--start-timeout",
        "120s",
        "--",
        str(bin_folder / program),
        *words,
    ]
    env = {**os.environ, **server.variables, "PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=apps, env=env) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            for line in process.stderr:
                said.append(line)
                if served := re.match(r"sponge: serving on (\S+) ", line):
                    break
            else:
                pytest.fail("sponge run ended: " + "".join(said))
            with subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL):
                try:
                    yield served[1], said
                finally:
                    process.send_signal(signal.SIGTERM)
                    status = process.wait(60)
            assert status in ENDS, "the server's own status"
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_the_command_of_the_table_serves(server: Server, tmp_path: Path) -> None:
    with running(server, tmp_path) as (url, said):
        asked = server.asked
        request = urllib.request.Request(
            url + asked.path, as_json(asked.body), {"content-type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
            if asked.answer is not None:
                assert json.loads(answer.read()) == asked.answer
        answers = [(path, status_of(url + path)) for path in READY_PATHS]
        assert next((path for path, status in answers if status < 400), "") == server.ready, answers
        notes = [line for line in said if "its port" in line or "does not listen" in line]
        assert len(notes) == (server.announces is not None), notes
        assert server.announces is None or server.announces in notes[0]
