from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from knative_sponge.cli.demo.figure import THEME, Picture
from knative_sponge.cli.demo.host import describe_machine, machine_line
from knative_sponge.cli.demo.page import render_page
from knative_sponge.cli.demo.report import StrategyRun, summarize
from knative_sponge.cli.demo.table import COLUMNS, terminal_table
from tests.cli.demo.sample_run import RATES, RUN, outcome

NAMES = ("sponge", "static-mean", "fifo", "static-max")
RUNS = [StrategyRun(name, RUN.seconds, RUN.outcomes, RUN.cores) for name in NAMES]
SUMMARIES = {run.name: summarize(run) for run in RUNS}


@pytest.fixture(scope="module")
def picture() -> Picture:
    return Picture(RUNS, list(SUMMARIES.values()), RATES)


@pytest.fixture(scope="module")
def page(picture: Picture) -> str:
    return render_page(
        title="A <title>", lead=["Lead & more"], summaries=SUMMARIES, picture=picture.svg(), notes=["note"]
    )


def test_the_png_can_be_opened_and_is_wide_enough_to_read(picture: Picture) -> None:
    with Image.open(io.BytesIO(picture.png())) as image:
        assert image.format == "PNG"
        assert image.width >= 2000


def test_the_svg_is_one_element_with_every_strategys_name_as_text(picture: Picture) -> None:
    root = ElementTree.fromstring(picture.svg())
    assert root.tag.endswith("svg")
    text = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("text"))
    for name in NAMES:
        assert name in text
    assert "50.0 % missed with 0.70 cores" in text


def test_the_svg_has_no_colour_that_a_dark_page_could_not_change(picture: Picture) -> None:
    svg = picture.svg()
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    assert set(re.findall(r"var\((--[a-z]+)\)", svg)) <= set(THEME.values())


def test_the_svg_shows_late_refused_and_timely_answers_apart(picture: Picture) -> None:
    svg = picture.svg()
    for colour in ("--met", "--late", "--dropped"):
        assert len(re.findall(rf"<use [^>]*var\({colour}\)", svg)) >= len(NAMES)


def test_the_page_defines_every_colour_twice_light_and_dark(page: str) -> None:
    for variable in THEME.values():
        assert len(re.findall(rf"{variable}: #", page)) == 2


class Reader(HTMLParser):
    """Open elements and what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "use"):
            self.open.append(tag)
        self.fetched += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag != "use":
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_other_file(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.fetched == []
    assert "url(http" not in page


def test_words_are_escaped_and_every_figure_is_in_the_table(page: str) -> None:
    assert "A &lt;title&gt;" in page
    assert "Lead &amp; more" in page
    for column in COLUMNS:
        assert len(re.findall(re.escape(column.show(SUMMARIES["sponge"])) + "(?:</span>)?</td>", page)) >= len(NAMES)


def test_the_bars_of_what_was_missed_begin_at_one_place_and_have_one_scale(page: str) -> None:
    bars = re.findall(
        r'<td><span class="share"><i style="width:([\d.]+)%"></i></span><span class="number">([\d.]+) %</span></td>',
        page,
    )
    assert bars == [("50.0", "50.0")] * len(NAMES)
    for sized in (".share", ".number"):
        assert re.search(rf"^\{sized} {{[^}}]*width: [\d.]+r?em", page, re.MULTILINE)


def test_every_column_of_the_picture_has_the_axes_of_the_others() -> None:
    late = tuple(outcome(1 + i / 100, 0.9) for i in range(60))
    runs = [RUN, StrategyRun("fifo", RUN.seconds, late, RUN.cores)]
    axes = Picture(runs, [summarize(run) for run in runs], RATES)._figure.axes
    limits = [(each.get_xlim(), each.get_ylim()) for each in axes]
    assert limits[::2] == limits[1::2]
    assert limits[-1][1][1] >= len(late)


def test_the_terminal_table_has_a_row_for_each_strategy() -> None:
    table = terminal_table(SUMMARIES)
    assert table.row_count == len(NAMES)
    assert [str(column.header) for column in table.columns] == ["strategy", *(column.title for column in COLUMNS)]


def test_the_machine_is_described_without_naming_it() -> None:
    machine = describe_machine()
    assert machine.keys() == {"cpu", "cores", "memory_gib", "kernel", "python"}
    assert float(machine["memory_gib"]) > 0
    assert str(machine["cpu"]) in machine_line(machine)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Picture([], [], RATES)
