"""An image is built again when, and only when, what it is made from changes."""

import os
import shutil
from pathlib import Path

import pytest

from e2e.cluster.provider import ClusterError
from e2e.cluster.recipe import Recipe, find

DOCKERFILE = """\
# COPY nothing from a comment
FROM base AS build
COPY one.txt \\
     lib /src/
RUN --mount=type=cache,target=/x \\
    true
FROM scratch
COPY --from=build /src /
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return a_recipe(tmp_path / "context")


def a_recipe(context: Path) -> Recipe:
    for path, text in {"one.txt": "1", "lib/a.py": "a", "lib/deep/b.py": "b", "other.txt": "o"}.items():
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(text)
    folder = context / "images" / "x"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return Recipe("x", folder, context)


def test_instructions_are_read_across_lines(recipe: Recipe) -> None:
    assert list(recipe.instructions()) == [
        ("FROM", "base AS build"),
        ("COPY", "one.txt lib /src/"),
        ("RUN", "--mount=type=cache,target=/x true"),
        ("FROM", "scratch"),
        ("COPY", "--from=build /src /"),
    ]


def test_the_sources_are_what_is_copied_from_the_context(recipe: Recipe) -> None:
    assert recipe.sources() == [recipe.folder / "Dockerfile", recipe.context / "one.txt", recipe.context / "lib"]


@pytest.mark.parametrize("path", ["one.txt", "lib/deep/b.py", "lib/new.py", "images/x/Dockerfile"])
def test_a_changed_input_changes_the_hash(recipe: Recipe, path: str) -> None:
    before = recipe.digest()
    with (recipe.context / path).open("a") as file:
        file.write("# more")
    assert recipe.digest() != before


def test_a_file_that_moves_or_becomes_executable_changes_the_hash(recipe: Recipe) -> None:
    hashes = [recipe.digest()]
    (recipe.context / "lib/a.py").rename(recipe.context / "lib/c.py")
    hashes.append(recipe.digest())
    (recipe.context / "lib/c.py").chmod(0o755)
    hashes.append(recipe.digest())
    hashes.append(recipe.digest("another base"))
    assert len(set(hashes)) == len(hashes)


def test_dates_places_bytecode_and_files_that_are_not_copied_leave_the_hash_alone(
    recipe: Recipe, tmp_path: Path
) -> None:
    before = recipe.digest("base")
    os.utime(recipe.context / "one.txt", (1, 1))
    (recipe.context / "other.txt").write_text("changed")
    (recipe.context / "lib/__pycache__").mkdir()
    (recipe.context / "lib/__pycache__/a.pyc").write_bytes(b"compiled")
    assert recipe.digest("base") == before
    assert a_recipe(tmp_path / "elsewhere").digest("base") == before


def test_a_source_that_is_missing_is_named(recipe: Recipe) -> None:
    shutil.rmtree(recipe.context / "lib")
    with pytest.raises(ClusterError, match="lib, which does not exist"):
        recipe.digest()


def test_an_unknown_image_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ClusterError, match="queue-proxy"):
        find("nothing")
    assert find("queue-proxy").tag == "dev.local/knative-sponge/queue-proxy:dev"
