"""docs/e2e.md says what is: the commands of a kind cluster, the tests, the places."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from e2e.cluster.bare import network
from e2e.cluster.bare.provider import _TOOLS
from e2e.cluster.kind.provider import FILES_VARIABLE
from e2e.cluster.kind.steps import FILES, NAME, PORT, steps
from e2e.cluster.places import REPOSITORY, cache, run_directory

PAGE = (REPOSITORY / "docs" / "e2e.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_page_lists_exactly_the_commands_that_are_run() -> None:
    listed = re.findall(r"^    # (.+)\n    (.+)$", section("A cluster in Docker, step by step"), re.MULTILINE)
    assert listed == [(step.title, shlex.join(step.argv)) for step in steps()]


def test_the_page_lists_every_file_of_tests() -> None:
    listed = re.findall(r"^\| `(test_\w+\.py)` \| \w", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (REPOSITORY / "e2e" / "tests").glob("test_*.py"))


def test_the_page_says_where_a_kind_cluster_is_reached_and_what_it_is_made_of() -> None:
    text = section("A cluster in Docker, step by step")
    assert all(f"`{name}`" in text for name in FILES)
    assert f"http://127.0.0.1:{PORT}`" in text
    assert f"kind delete cluster --name={NAME}\n" in text
    assert FILES_VARIABLE in section("Running them")


def test_the_page_says_where_the_bare_cluster_is_and_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    text = section("The bare cluster")
    assert f"`{run_directory()}`" in text
    assert f"`~/{cache().relative_to(Path.home())}`" in text
    assert f"`{network.NAMESPACE}`" in text
    assert f"http://{network.INGRESS_IP}/" in text
    assert all(package in text for package in _TOOLS.values())


def test_the_kubeconfig_of_the_page_is_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (named,) = re.findall(r"export KUBECONFIG=(\S+)", PAGE)
    assert os.path.expanduser(named) == str(cache() / "kind" / "kubeconfig")
