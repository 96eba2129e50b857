"""What each extra installs is enough for what it is said to be for: all that it does not install is hidden from the imports."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from knative_sponge.cli.main import VERBS

ROOT = Path(__file__).parent.parent.parent
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
HIDING = """
import sys
hidden = set(sys.argv.pop(1).split(","))
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
VERB = HIDING + "from knative_sponge.cli.main import main; sys.exit(main(sys.argv[1:]))"
PROGRAM = HIDING + "import importlib; importlib.import_module(sys.argv[1])"


def installed_by(extra: str) -> set[str]:
    """The distributions that come with an extra, those that they require in turn included."""
    found: set[tuple[str, str]] = set()
    front = [Requirement(text) for text in EXTRAS[extra]]
    while front:
        requirement = front.pop()
        name = canonicalize_name(requirement.name)
        for asked in ("", *requirement.extras):
            if (name, asked) not in found:
                found.add((name, asked))
                front += required(name, asked)
    return {name for name, _ in found}


def required(name: str, extra: str) -> Iterator[Requirement]:
    """What a distribution requires for one of its extras, or with "" for none."""
    if name == "knative-sponge":
        yield from map(Requirement, EXTRAS[extra] if extra else [])
        return
    try:
        requirements = importlib.metadata.requires(name) or ()
    except (
        importlib.metadata.PackageNotFoundError
    ):  # scikit-image is here for its pictures only, without what it requires
        requirements = ()
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def hidden_by(extra: str) -> str:
    """The top-level modules of this environment that an environment with only this extra does not have."""
    kept = installed_by(extra) | {"knative-sponge", "pip", "setuptools"}
    modules = importlib.metadata.packages_distributions()
    return ",".join(
        module
        for module, owners in modules.items()
        if not {canonicalize_name(owner) for owner in owners} & kept and module != "knative_sponge"
    )


def run(extra: str, code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, hidden_by(extra), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


USES = {
    "run": ("cli", ["--slo", "soon", "--", "server"], 2, "sponge run: --slo: 'soon' is not allowed"),
    "demo": ("demo", ["--server", "/no/such"], 2, "sponge demo: server: '/no/such' is not allowed"),
    "top": ("cluster", ["--once", "--kubeconfig", "/no/such"], 1, "sponge top: kubeconfig: "),
    "explain": ("cluster", ["--kubeconfig", "/no/such", "x"], 1, "sponge explain: kubeconfig: "),
}


def test_every_verb_is_tried_with_its_own_extra() -> None:
    assert {verb: extra for verb, (extra, *_) in USES.items()} == {name: verb.extra for name, verb in VERBS.items()}


@pytest.mark.parametrize("verb", USES)
def test_a_verb_explains_itself_and_its_errors_with_nothing_but_its_extra(verb: str) -> None:
    extra, argv, status, words = USES[verb]
    shown = run(extra, VERB, verb, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"sponge {verb}" in shown.stdout
    failed = run(extra, VERB, verb, *argv)
    assert failed.returncode == status, failed.stderr
    assert words in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_a_local_server_is_explained_where_only_local_servers_are_run() -> None:
    failed = run("cli", VERB, "explain", "--state", "http://127.0.0.1:1/sponge/v1/state")
    assert failed.returncode == 2
    assert failed.stderr.startswith("sponge explain: --state: 'http://127.0.0.1:1/")
    assert run("cli", VERB, "explain", "--help").returncode == 0


@pytest.mark.parametrize(
    ("extra", "verb", "argv", "other"),
    [
        ("cli", "explain", ["x"], "cluster"),
        ("cli", "top", [], "cluster"),
        ("cli", "demo", [], "demo"),
        ("cluster", "run", ["--", "server"], "cli"),
    ],
)
def test_a_verb_of_another_extra_names_it(extra: str, verb: str, argv: list[str], other: str) -> None:
    failed = run(extra, VERB, verb, *argv)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"sponge {verb}: needs ")
    assert failed.stderr.endswith(f"pip install '.[{other}]'\n")


@pytest.mark.parametrize(
    ("extra", "module"),
    [
        ("proxy", "knative_sponge.proxy.__main__"),
        ("proxy", "knative_sponge.proxy.queue.wiring"),
        ("proxy", "knative_sponge.proxy.knative.request_metrics"),
        ("controller", "knative_sponge.controller.__main__"),
        ("controller", "knative_sponge.controller.process"),
        ("controller", "knative_sponge.controller.sizing.cpsat"),
    ],
)
def test_a_program_is_imported_with_nothing_but_its_extra(extra: str, module: str) -> None:
    imported = run(extra, PROGRAM, module)
    assert imported.returncode == 0, imported.stderr
