"""What every Dockerfile keeps to, whatever it builds."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.places import REPOSITORY
from e2e.cluster.recipe import Recipe, recipes

DOCKERFILES = [recipe for recipe in recipes() if recipe.dockerfile is not None]
LIBRARY = "/usr/local/bin/python3"


@pytest.fixture(params=DOCKERFILES, ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    found: Recipe = request.param
    return found


def last(recipe: Recipe, wanted: str) -> str:
    return [rest for word, rest in recipe.instructions() if word == wanted][-1]


def copied_packages(recipe: Recipe) -> Iterator[Path]:
    """Python files of the repository that the image holds."""
    for source in recipe.sources():
        if source.suffix == ".py":
            yield source
        elif source.is_dir():
            yield from source.rglob("*.py")


def imports(file: Path) -> Iterator[str]:
    """Modules that `file` imports anywhere, except for type checkers only."""
    tree = ast.parse(file.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_there_are_images_of_every_program() -> None:
    assert {recipe.name for recipe in recipes()} >= {
        "queue-proxy",
        "autoscaler",
        "ocr-server",
        "affine",
        "events",
        "echo",
    }


def test_the_program_is_process_1_without_a_shell(recipe: Recipe) -> None:
    command = json.loads(last(recipe, "ENTRYPOINT"))
    assert command[0] == LIBRARY
    assert all(isinstance(word, str) for word in command)
    assert not [word for word, _ in recipe.instructions() if word in ("CMD", "SHELL", "VOLUME", "HEALTHCHECK")]


def test_kubernetes_can_tell_that_the_user_is_not_root(recipe: Recipe) -> None:
    assert int(last(recipe, "USER")) > 0


def test_the_final_image_starts_empty(recipe: Recipe) -> None:
    assert last(recipe, "FROM") == "scratch"


def test_nothing_comes_from_the_network_but_locked_wheels(recipe: Recipe) -> None:
    for word, rest in recipe.instructions():
        assert word != "ADD"
        assert "://" not in rest
        if "pip install" in rest:
            lock = Path(rest.split(" -r ")[1].split()[0])
            assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(rest.split())
            assert REPOSITORY / lock in recipe.sources()


def test_the_base_is_named_by_digest(recipe: Recipe) -> None:
    (base,) = (rest for word, rest in recipe.instructions() if word == "ARG")
    assert re.fullmatch(r"BASE=[^@]+:[^@]+@sha256:[0-9a-f]{64}", base)


@pytest.mark.parametrize("lock", sorted((REPOSITORY / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_every_locked_package_has_a_version_and_hashes(lock: Path) -> None:
    packages = re.sub(r"\\\n\s*", "", lock.read_text()).splitlines()
    pins = [line for line in packages if not line.startswith("#")]
    assert pins
    for pin in pins:
        assert re.fullmatch(r"[-\w.]+==[\w.]+( ; [^\\]+?)? (--hash=sha256:[0-9a-f]{64} ?)+", pin), pin


def test_everything_copied_exists_and_reaches_the_build(recipe: Recipe) -> None:
    allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in recipe.sources():
        assert source.exists()
        path = source.relative_to(REPOSITORY)
        assert any(path.is_relative_to(place) for place in allowed)


def test_the_image_holds_every_module_of_ours_that_its_program_imports(recipe: Recipe) -> None:
    files = set(copied_packages(recipe))
    for file in files:
        for module in imports(file):
            path = REPOSITORY.joinpath(*module.split("."))
            for wanted in (path.with_suffix(".py"), path / "__init__.py"):
                if module.split(".")[0] in ("knative_sponge", "e2e") and wanted.is_file():
                    assert wanted in files, f"{file.relative_to(REPOSITORY)} imports {module}"


def test_the_sidecar_has_nothing_of_the_other_programs() -> None:
    (sidecar,) = (recipe for recipe in DOCKERFILES if recipe.name == "queue-proxy")
    parts = {
        file.relative_to(REPOSITORY / "knative_sponge").parts[0]
        for file in copied_packages(sidecar)
        if "images" not in file.parts
    }
    assert parts == {
        "__init__.py", "asgi.py", "bounded_protocol.py", "byte_budget.py", "connection_limit.py", "errors.py", "listener.py",
        "process_limits.py", "codec", "core", "proxy", "settings", "wire",
    }  # fmt: skip
