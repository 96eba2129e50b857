"""`sponge top`: the table, the word on each revision, and what happens when the leader cannot be asked."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from knative_sponge.cli.columns import columns
from knative_sponge.cli.main import main
from knative_sponge.cli.top import HEAD, screen, state, table, watch
from knative_sponge.controller.reporting.rows import BoardError, NodeRow, Overview, RevisionRow
from knative_sponge.errors import KubeError, KubeUnreachable
from tests.cli.fake_cluster import FakeCluster
from tests.controller.reporting.board_kit import NODE, POD, REVISION, SHORT, of, steady
from tests.controller.revision_kit import run

OTHER = of(namespace="back", name="z-00001", service="z", wanted_pods=0)
OVERVIEW = Overview(0.1, (REVISION, OTHER), (NODE,))


def test_a_row_adds_up_its_pods() -> None:
    pods = (POD, replace(POD, cores=0.5, want=0.7, queued=4, slack_s=0.12, rate=5.75, met=0, missed=2000))
    (row,) = table(Overview(0.0, (of(*pods, wanted_pods=3),), (NODE,)))
    assert dict(zip(HEAD, row, strict=True)) == {
        "NAMESPACE": "shop", "REVISION": "ocr-00001", "PODS": "2/3", "CORES": "1.30", "WANT": "1.90", "QUEUE": "7",
        "SLACK": "120ms", "RATE": "20.0/s", "MISSED": "50.25%", "STATE": "resizing",
    }  # fmt: skip


def test_rows_are_sorted_and_a_namespace_chooses() -> None:
    assert [row[:2] for row in table(OVERVIEW)] == [("back", "z-00001"), ("shop", "ocr-00001")]
    assert [row[:2] for row in table(OVERVIEW, "shop")] == [("shop", "ocr-00001")]
    assert table(OVERVIEW)[0][2:] == ("0/0", "0.00", "0.00", "0", "-", "0.0/s", "-", "at zero")


@pytest.mark.parametrize(
    ("revision", "node", "word"),
    [
        (of(wanted_pods=0), NODE, "at zero"),
        (of(wanted_pods=2), NODE, "starting"),
        (of(steady()), NODE, "steady"),
        (of(steady(), POD), NODE, "resizing"),
        (of(steady(want=3.0), POD), SHORT, "short"),
        (of(steady(), steady(phase="deferred", want=3.0)), SHORT, "deferred"),
        (of(steady(phase="deferred"), steady(phase="infeasible")), NODE, "infeasible"),
        (of(steady(phase="infeasible"), steady(phase="error")), NODE, "error"),
        (of(steady(phase="error"), steady(news_s=None)), NODE, "no news"),
        (of(steady(news_s=60.0)), NODE, "no news"),
    ],
)
def test_the_state_is_what_matters_most(revision: RevisionRow, node: NodeRow, word: str) -> None:
    assert state(revision, {"n1": node}.get) == word


def test_the_screen_shows_table_and_trouble() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(screen(replace(OVERVIEW, age_s=9.0), "the leader a-1 cannot be asked", None))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(
        word in shown for word in (*HEAD, "ocr-00001", "the leader a-1 cannot be asked", "not renewed this for 9 s")
    )


def test_failures_are_shown_with_the_last_overview_and_watching_goes_on() -> None:
    looks: Iterator[Overview | Exception] = iter(
        [KubeUnreachable("down"), OVERVIEW, KubeUnreachable("away"), BoardError("version"), OVERVIEW]
    )
    seen: list[tuple[Overview | None, str]] = []

    async def look() -> Overview:
        step = next(looks, None)
        if step is None:
            raise asyncio.CancelledError
        if isinstance(step, Exception):
            raise step
        return step

    async def body() -> None:
        with pytest.raises(asyncio.CancelledError):
            await watch(look, lambda overview, error: seen.append((overview, error)), once=False, period_s=0.0)

    run(body())
    assert seen == [(None, "down"), (OVERVIEW, ""), (OVERVIEW, "away"), (OVERVIEW, "version"), (OVERVIEW, "")]


def test_a_single_look_fails_with_its_error() -> None:
    async def look() -> Overview:
        raise KubeUnreachable("down")

    with pytest.raises(KubeError, match="down"):
        run(watch(look, lambda _overview, _error: None, once=True))


COMMAND = (sys.executable, "-c", "import sys; from knative_sponge.cli.main import main; sys.exit(main())")


async def command(cluster: FakeCluster, folder: Path, *argv: str) -> tuple[int, str, str]:
    """Exit status, output and errors of the real command in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *argv, "--kubeconfig", cluster.kubeconfig(folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_the_command_prints_plain_columns_or_json_into_a_pipe(tmp_path: Path) -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            cluster.pods["a-1"] = OVERVIEW
            status, out, err = await command(cluster, tmp_path, "top", "--once", "-n", "shop")
            assert (status, err) == (0, "")
            assert [line.split() for line in out.splitlines()] == [list(HEAD), list(table(OVERVIEW, "shop")[0])]
            status, out, err = await command(cluster, tmp_path, "top", "--once", "--json", "-n", "shop")
            assert (status, err) == (0, "")
            assert Overview.from_json(json.loads(out)) == Overview(0.1, (REVISION,), (NODE,))
            status, out, err = await command(cluster, tmp_path, "explain", "ocr")
            assert (status, err) == (0, "")
            assert out.startswith("shop/ocr-00001: ")
            del cluster.pods["a-1"]
            status, out, err = await command(cluster, tmp_path, "top", "--once")
            assert (status, out) == (1, "")
            assert err.startswith("sponge top: the leader a-1 cannot be asked")

    run(body())


def test_a_reader_that_has_had_enough_ends_it_quietly(tmp_path: Path) -> None:
    async def body() -> None:
        async with FakeCluster() as cluster:
            cluster.led_by("a-1")
            cluster.pods["a-1"] = OVERVIEW
            read, write = os.pipe()
            os.close(read)
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                "top",
                "--kubeconfig",
                cluster.kubeconfig(tmp_path),
                stdout=write,
                stderr=asyncio.subprocess.PIPE,
            )
            os.close(write)
            _, err = await process.communicate()
            assert (process.returncode, err) == (0, b"")

    run(body())


def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "operate.md").read_text()
    lines = columns([HEAD, *table(OVERVIEW)], 2)
    assert "".join(f"    {line}\n" for line in lines) in page


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["top", "--twice"])
    assert end.value.code == 2
    assert "--twice" in capsys.readouterr().err
