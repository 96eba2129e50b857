"""The page about model servers says what is done for each, and each line of its table is a test."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from knative_sponge.cli.main import VERBS
from knative_sponge.cli.run import _parser
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.servers import PLACEHOLDER, READY_PATHS, VARIABLES, launch
from tests.servers.catalogue import SERVERS, Server
from tests.servers.documented import READY

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "servers.md").read_text()
ROWS = {
    name: tuple(cell.strip() for cell in rest.split("|"))
    for name, rest in re.findall(r"^\| ([^|`]+?) \| (`.*) \|$", TEXT, re.MULTILINE)
}


def pinned() -> dict[str, str]:
    files = [ROOT / "requirements" / "foreign.txt", *(ROOT / "requirements" / "servers").glob("*.txt")]
    locks = "\n".join(file.read_text() for file in files)
    # A line with hashes below it ends in a backslash.
    return {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)(?: \\)?$", locks, re.MULTILINE)}


def test_each_line_is_a_test_with_the_command_as_it_stands() -> None:
    assert {name: cells[0] for name, cells in ROWS.items()} == {one.name: f"`{one.command}`" for one in SERVERS}


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_what_tells_a_server_its_port_is_what_does(server: Server) -> None:
    told = ROWS[server.name][1]
    names = re.findall(r"`([^`]+)`", told)
    command = tuple(server.command.split())
    done = launch(command, 81, {})
    if told.endswith(", added"):
        assert done.command[: len(command)] == command
        assert names[0] in done.command[len(command)]
    elif told.startswith("nothing"):
        assert done.command == command
        assert server.announces is not None
    elif names == [PLACEHOLDER]:
        assert PLACEHOLDER in server.command
    else:
        assert "81" in done.env[names[0]]


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_what_was_tried_is_the_version_that_is_installed_for_the_test(server: Server) -> None:
    assert ROWS[server.name][4] == (pinned()[server.package.lower()] if server.environment else "documentation only")


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_a_server_is_ready_by_a_path_that_is_asked_or_by_its_port(server: Server) -> None:
    assert ROWS[server.name][2].strip("`") == (server.ready or "it accepts connections")
    assert server.ready in (*READY_PATHS, "")
    if not server.environment:
        words = server.command.split()
        name = words[words.index("-m") + 1] if words[0] == "python" else words[0]
        assert READY.get(name, "") == server.ready, "as the stand-in behaves"


def test_every_variable_is_in_the_table_or_explained() -> None:
    table = {name for cells in ROWS.values() for name in re.findall(r"`(\w+)`", cells[1])}
    assert table - {"PORT", "port", "OLLAMA_HOST"} <= set(VARIABLES)
    assert set(VARIABLES) - table == {"RAY_SERVE_DEFAULT_HTTP_PORT"}, "2.60 does not read it yet"
    assert "`RAY_SERVE_DEFAULT_HTTP_PORT`" in TEXT


def test_the_order_and_the_times_of_readiness_are_the_codes() -> None:
    order = ", ".join(f"`{path}`" for path in READY_PATHS[:-1]) + f" and `{READY_PATHS[-1]}`"
    assert order in re.sub(r"\s+", " ", TEXT)
    options = LocalOptions(("server",))
    assert f"`--start-timeout` ({options.start_timeout_s:.0f}s)" in TEXT
    assert f"`--ready-timeout` ({options.ready_timeout_s:.0f}s" in TEXT


@pytest.mark.parametrize("page", ["run.md", "servers.md"])
def test_every_flag_on_the_pages_is_one_of_the_command(page: str) -> None:
    flags = {flag for action in _parser()._actions for flag in action.option_strings}
    text = (ROOT / "docs" / page).read_text()
    table = "\n".join(line for line in text.splitlines() if not line.startswith("| ") or page == "run.md")
    others = {"--http_port", "--help"}  # of model servers
    assert set(re.findall(r"`(--[a-z_-]+)", table)) - others <= flags
    assert {"run", "explain"} <= set(VERBS)


def test_environments_are_named_after_their_requirements() -> None:
    named = {server.environment for server in SERVERS} - {"", "foreign"}
    assert named == {path.stem for path in (ROOT / "requirements" / "servers").glob("*.txt")}
    assert os.path.isfile(ROOT / "requirements" / "foreign.txt")
