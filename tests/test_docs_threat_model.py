"""The threat model names tests that there are, fields that the proxy reads, and ports and Secrets that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from knative_sponge.core.batching.deadline import CLAIM_HEADERS
from knative_sponge.proxy.http.headers import REWRITTEN
from knative_sponge.settings import ControllerSettings, ProxySettings
from knative_sponge.settings import controller as controller_settings
from knative_sponge.settings import proxy as proxy_settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "threat-model.md").read_text()

Row = tuple[str, ...]


def tables(heading: str) -> Iterator[list[Row]]:
    """The tables below a heading, up to the next of its level, without their first two lines."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (found,) = [each for each in section if each.startswith(heading + "\n")]
    for table in re.findall(r"(?:^\|.*\|\n)+", found, re.MULTILINE):
        lines = table.splitlines()[2:]
        yield [
            tuple(cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|"))
            for line in lines
        ]


THREATS = [row for table in tables("Threats") for row in table]
(STRIPPED,) = tables("What the ingress must strip")
(PORTS,) = tables("Ports")
(SECRETS,) = tables("Secrets")
HOSTILE = sorted((ROOT / "tests" / "hostile").glob("test_*.py"))


def names(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def defined(path: Path) -> set[str]:
    """The tests of a module."""
    tree = ast.parse(path.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_the_page_has_threats_of_every_kind() -> None:
    assert len(THREATS) > 30
    assert all(len(row) == 3 for row in THREATS)


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0][:60])
def test_every_threat_names_a_test_that_there_is(row: Row) -> None:
    nodes = names(row[2])
    assert nodes
    for node in nodes:
        file, _, name = node.partition("::")
        assert (ROOT / file).is_file(), f"{file}, for: {row[0]}"
        assert not name or name in defined(ROOT / file), f"{node}, for: {row[0]}"
        assert defined(ROOT / file), f"{file} has no test"


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_every_test_of_hostile_input_answers_a_threat(path: Path) -> None:
    named = {node.partition("::")[0] for row in THREATS for node in names(row[2])}
    assert f"tests/hostile/{path.name}" in named


def test_every_field_that_the_proxy_believes_is_on_the_list_for_the_ingress() -> None:
    listed = [name.lower() for row in STRIPPED for name in names(row[0])]
    probes = {"k-network-probe", "k-network-hash", "k-kubelet-probe", "k-proxy-request", "k-passthrough-lb"}
    believed = {name.decode() for name in CLAIM_HEADERS | REWRITTEN - {b"host"}} | probes
    for name in believed:
        assert any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in listed), name


def test_every_port_is_the_one_in_the_code() -> None:
    shown = {(names(row[0])[0], "controller" in row[0]): int(re.findall(r"\d+", row[0])[0]) for row in PORTS}
    assert len(shown) == len(PORTS)
    for (variable, of_controller), port in shown.items():
        kind, module = (ControllerSettings, controller_settings) if of_controller else (ProxySettings, proxy_settings)
        if variable in module._OPTIONAL:  # the others are Knative's to say
            (default,) = [item.default for item in fields(kind) if item.name == module._OPTIONAL[variable][0]]
            assert default == port, variable


def test_every_secret_of_the_controller_is_there() -> None:
    listed = {name for row in SECRETS for name in names(row[0])}
    made = {item.default for item in fields(ControllerSettings) if item.name.endswith("_secret")}
    assert made <= listed
