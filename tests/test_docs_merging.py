"""The page about merging shows the table that the code decides by. `python -m tests.test_docs_merging` writes it anew."""

from __future__ import annotations

from pathlib import Path

from knative_sponge.codec.headers import APART, FIELDS, Group

PAGE = Path(__file__).parent.parent / "docs" / "merging.md"
MARK = "<!-- fields: made from knative_sponge/codec/headers.py by tests/test_docs_merging.py -->\n"


def table() -> str:
    """All fields, those that keep requests apart first."""
    lines = ["| headers | group | why | source |", "|---|---|---|---|"]
    for row in FIELDS:
        names = ", ".join(f"`{name}`" for name in row.names)
        lines.append(f"| {names} | {row.group} | {row.why} | {row.source} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_table() -> None:
    _, found, shown = PAGE.read_text().partition(MARK)
    assert found
    assert shown.strip() == table().strip()


def test_every_group_is_explained_and_said_to_be_lost_or_not() -> None:
    text = PAGE.read_text()
    for group in Group:
        line = next(line for line in text.splitlines() if line.startswith(f"| {group} | "))
        assert ("keeps requests apart" in line) is (group in APART)


if __name__ == "__main__":
    before, mark, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(before + mark + "\n" + table())
