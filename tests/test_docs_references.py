"""What code and pages refer to is there: documents, their sections, modules and files."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "knative_sponge"
DOCS = ROOT / "docs"

SUFFIXES = {".py", ".md", ".yaml", ".toml", ".json", ".go"}
FOLDERS = ("knative_sponge", "tests", "benchmarks", "fuzz", "e2e", "images", "manifests", "examples", "docs")
FILES = [
    *sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and (path.suffix in SUFFIXES or path.name == "Dockerfile")
    ),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")),
]
PAGES = [path for path in FILES if path.suffix == ".md"]
MODULES = [path for path in FILES if path.suffix == ".py"]
PACKAGES = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

NUMBER = r"§(\d+(?:\.\d+)*)"
CITATION = re.compile(rf"docs/([a-z0-9-]+\.md) {NUMBER}((?:(?:,| and| to) {NUMBER})*)")
OTHERS = re.compile(
    r"(?:RFC \d+|HTTP binding|HTTP protocol binding|JSON format|HTTP 1\.1 Web Hooks for Event Delivery) "
    rf"{NUMBER}(?:(?:,| and) {NUMBER})*"
)
"""Documents that are not ours and are cited by section."""
BACKTICKS = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.py|[a-z_]\w*(?:/\w+)+/?")
DOTTED = re.compile(r"[a-z_]\w*(?:\.\w+)+")


def flowing(path: Path) -> str:
    """The text of a file with its line breaks, and the comment marks after them, as single spaces."""
    return re.sub(r"\s*\n[ \t]*(?:(?:#|//)[ \t]*)?", " ", path.read_text())


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Document and section of each citation, such as ("design.md", "4.2"); several sections may follow one document."""
    for match in CITATION.finditer(text):
        for section in re.findall(NUMBER, match[0]):
            yield match[1], section


def sections(page: Path) -> list[str]:
    """The numbers that a page's headings begin with."""
    return re.findall(r"^#+ (\d+(?:\.\d+)*)\.? ", page.read_text(), re.MULTILINE)


def named(path: Path) -> set[str]:
    """What stands in backticks on a page, or in the docstrings of a module."""
    if path.suffix == ".md":
        return set(BACKTICKS.findall(path.read_text()))
    nodes = ast.walk(ast.parse(path.read_text()))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {name for text in texts for name in BACKTICKS.findall(text)}


def is_module_or_name(dotted: str) -> bool:
    """Whether a dotted name, from below `knative_sponge` on, is a package, a module, or something that a module defines."""
    place, names = PACKAGE, dotted.removeprefix("knative_sponge.").split(".")
    for at, name in enumerate(names):
        place /= name
        module = place.with_suffix(".py")
        if module.is_file():
            rest = names[at + 1 : at + 2]
            return (
                not rest or re.search(rf"^(?:class |def |async def )?{rest[0]}\b", module.read_text(), re.M) is not None
            )
        if not place.is_dir():
            init = place.parent / "__init__.py"
            return at > 0 and re.search(rf"\b{name}\b", init.read_text()) is not None
    return True


def test_everything_is_looked_at() -> None:
    assert len(FILES) > 600
    assert len(PAGES) > 15
    assert {"core", "controller", "proxy"} <= PACKAGES
    found = [(path, *each) for path in FILES for each in citations(flowing(path))]
    assert len(found) > 80
    assert sum(path.is_relative_to(PACKAGE) for path, *_ in found) > 50
    assert {document for _, document, _ in found} == {"design.md", "knative-contract.md"}


def test_every_section_that_is_cited_is_a_heading() -> None:
    cited = {each: path for path in FILES for each in citations(flowing(path))}
    for (document, section), path in sorted(cited.items()):
        assert section in sections(DOCS / document), f"{path}: docs/{document} has no §{section}"


@pytest.mark.parametrize("name", ["design.md", "knative-contract.md"])
def test_sections_are_numbered_in_order(name: str) -> None:
    numbers = [tuple(map(int, number.split("."))) for number in sections(DOCS / name)]
    assert len(numbers) > 20
    for before, after in itertools.pairwise(numbers):
        deeper, beside = (*before, 1), [(*before[:depth], before[depth] + 1) for depth in range(len(before))]
        assert after in (deeper, *beside), f"{after} after {before}"


def test_every_section_sign_belongs_to_a_document_that_is_named() -> None:
    for path in FILES:
        text = OTHERS.sub("", CITATION.sub("", flowing(path)))
        if path.parent == DOCS and sections(path):  # a numbered page may speak of itself
            for section in re.findall(NUMBER, text):
                assert section in sections(path), f"{path} has no §{section}"
            text = re.sub(NUMBER, "", text)
        if path != Path(__file__):
            assert "§" not in text, f"{path}: which document? …{text[max(0, text.find('§') - 40) :][:60]}…"


def test_every_page_that_is_mentioned_exists() -> None:
    mentioned = {name: path for path in FILES for name in re.findall(r"docs/[a-z0-9-]+\.md", path.read_text())}
    assert len(mentioned) > 10
    for name, path in mentioned.items():
        assert (ROOT / name).is_file(), f"{path}: {name}"


def test_every_link_between_pages_leads_somewhere() -> None:
    links = [
        (page, *link) for page in PAGES for link in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", page.read_text())
    ]
    assert len(links) > 30
    for page, target, anchor in links:
        found = (page.parent / target).resolve()
        assert found.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page}: {target}#{anchor}"


def test_every_file_and_module_that_is_named_exists() -> None:
    everywhere = {path.name for path in FILES}
    checked = 0
    for path in [*PAGES, *MODULES]:
        for name in named(path):
            if PATH.fullmatch(name) and "/" in name and name.split("/")[0] in {*PACKAGES, *FOLDERS}:
                assert (ROOT / name).exists() or (PACKAGE / name).exists(), f"{path}: `{name}`"
            elif PATH.fullmatch(name) and name.endswith(".py") and "/" not in name:
                assert name in everywhere, f"{path}: `{name}`"
            elif DOTTED.fullmatch(name) and name.split(".")[0] in {*PACKAGES, "knative_sponge"}:
                assert is_module_or_name(name), f"{path}: `{name}`"
            else:
                continue
            checked += 1
    assert checked > 100


def test_every_package_and_room_is_on_the_map() -> None:
    text = (DOCS / "design.md").read_text()
    first, second = (text.index(f"\n### {number} ") for number in ("1.1", "1.2"))
    listed = set(re.findall(r"^\| `(\w+)` \|", text[first:second], re.MULTILINE))
    packages = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert len(packages) > 8
    assert packages - {"__init__"} <= listed
    rooms = {f"{path.parent.parent.name}/{path.parent.name}" for path in PACKAGE.glob("*/*/__init__.py")}
    assert len(rooms) > 15
    assert rooms == set(re.findall(r"^\| `(\w+/\w+)` \|", text, re.MULTILINE))
