"""The threat model names tests that there are, limits that the code has, fields that it reads and ports that it serves."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.core.batching.deadline import CLAIM_HEADERS
from knative_sponge.core.quantity import parse_duration_s, parse_quantity
from knative_sponge.proxy.http.headers import REWRITTEN
from knative_sponge.settings import ControllerSettings, ProxySettings, ServingSettings
from knative_sponge.settings import controller as controller_settings
from knative_sponge.settings import proxy as proxy_settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "threat-model.md").read_text()

Row = tuple[str, ...]

CONSTANTS: dict[str, tuple[str, ...]] = {
    "bytes of a chunked body beside its data": ("proxy.http.head_limits:EXCESS",),
    "dimensions of a tensor": ("codec.json.skeleton:MOST_DIMENSIONS",),
    "requests that wait in the queue": ("core.batching.batcher:BatchRules.max_queue",),
    "open files kept for all else": ("proxy.http.bounds:RESERVED_FILES",),
    "characters of an annotation": ("settings.serving:MOST_TEXT",),
    "faults named in one refusal": ("controller.annotations:MOST_FAULTS",),
    "characters of input in an error text": ("errors:_MOST_SHOWN",),
    "bytes of one review": ("controller.admission.bodies:LARGEST_REVIEW",),
    "values in one review": ("controller.admission.admission_review:MOST_VALUES",),
    "time for a review's body": ("controller.admission.bodies:READ_S",),
    "learned models in the store": ("controller.profiles.store:MOST_PROFILES",),
}
"""Where the limits are that no setting changes: module below `knative_sponge`, and name."""
IN_WORDS = {"time of a request's body", "requests behind one that is not answered"}
"""Limits without a number."""


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
(LIMITS,) = tables("Limits")
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
    assert len(LIMITS) > 15
    assert all(len(row) == 3 for row in THREATS)
    assert all(len(row) == 4 for row in LIMITS)


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


def amount(text: str) -> float:
    """A default as the page writes it: a size, a duration or a number."""
    size = re.fullmatch(r"(\d+) ([KMG]i)B", text)
    if size:
        return parse_quantity(size[1] + size[2])
    return parse_duration_s(text) if text.endswith("s") else float(text)


def default_of(setting: str) -> Any:
    """The default of an annotation, or of a variable of the proxy or the controller; None is unset."""
    if setting in ServingSettings.names():
        (item,) = [
            each for each in fields(ServingSettings) if each.name.removesuffix("_s").replace("_", "-") == setting
        ]
        return item.default
    for kind, variables in (
        (ProxySettings, proxy_settings._OPTIONAL),
        (ControllerSettings, controller_settings._OPTIONAL),
    ):
        if setting in variables:
            (default,) = [item.default for item in fields(kind) if item.name == variables[setting][0]]
            return default
    raise AssertionError(f"no setting is called {setting}")


def constant(place: str) -> Any:
    """A constant of the code; of a dataclass's field the default."""
    module, _, name = place.partition(":")
    value: Any = importlib.import_module(f"knative_sponge.{module}")
    for part in name.split("."):
        if part in getattr(value, "__dataclass_fields__", {}):
            return value.__dataclass_fields__[part].default
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[0])
def test_every_limit_is_the_one_in_the_code(row: Row) -> None:
    limit, shown, settings, _ = row
    if limit in IN_WORDS:
        return
    if names(settings):
        found = [default_of(setting) for setting in names(settings)]
    else:
        found = [constant(place) for place in CONSTANTS[limit]]
    if shown.startswith("unset"):
        assert found == [None]
    else:
        assert [amount(each) for each in shown.split(", ")] == found


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
