"""Latency profiles as files."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.core.latency.profile import to_json
from knative_sponge.errors import SettingError, WireError
from knative_sponge.local.options import LocalOptions
from knative_sponge.local.profile_file import ProfileSaver, check_profile, check_writable, write_profile
from knative_sponge.local.runner import LocalService
from knative_sponge.settings import ServingSettings
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.cores import CoresMessage
from knative_sponge.wire.state import CoresState, ProxyState
from tests.local.fake_cpu import FakeCpu

MODEL = to_json(LatencyModel(LatencyParams(0.1, 0.01, 0.0, 0.0)))


def test_what_is_written_is_read_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("an older one")
    write_profile(path, MODEL)
    check_profile(path)
    assert json.loads(path.read_text()) == MODEL
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "recursion"),
        (b"{}", "version: missing"),
        (json.dumps({**MODEL, "version": 9}).encode(), "version: 9 is not known"),
        (json.dumps({**MODEL, "prior": 5}).encode(), "prior"),
        (b" " * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=f"^profile: .*a file with a latency profile .*{why}"):
        check_profile(path)


def test_where_nothing_can_be_written_is_known_before(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.json")
    for path, why in ((tmp_path, "a folder"), (tmp_path / "no" / "p.json", "there is no folder")):
        with pytest.raises(SettingError, match=f"^save-profile: .*{why}"):
            check_writable(path)


class FakeAdmin(AdminClient):
    """A proxy's admin port that tells a state, or fails."""

    def __init__(self, model: dict[str, Any] | None) -> None:
        super().__init__("127.0.0.1", 1)
        self._model = model

    async def state(self) -> ProxyState:
        if self._model is None:
            raise WireError("nobody there")
        return ProxyState(cores=CoresState(now=1.0, want=1.0), model=self._model)

    async def put_cores(self, message: CoresMessage) -> None:
        raise AssertionError("it only looks")


def told(model: dict[str, Any] | None, path: Path, act: Callable[[ProfileSaver], Awaitable[None]]) -> list[str]:
    said: list[str] = []
    asyncio.run(_run(ProfileSaver(FakeAdmin(model), path, said.append, said.append), act))
    return said


async def _run(saver: ProfileSaver, act: Callable[[ProfileSaver], Awaitable[None]]) -> None:
    await act(saver)


def test_what_was_learned_is_saved_at_the_end_and_said(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    learned = {**MODEL, "samples": 12}
    assert told(learned, path, ProfileSaver.finish) == [f"the latency model of 12 calls is in {path}"]
    assert json.loads(path.read_text()) == learned


def test_a_run_without_calls_does_not_replace_what_an_earlier_one_learned(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("earlier")
    assert told(MODEL, path, ProfileSaver.finish) == [f"nothing was learned: {path} is as it was"]
    assert path.read_text() == "earlier"


def test_a_proxy_that_is_gone_is_said_and_nothing_fails(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    assert told(None, path, ProfileSaver.finish) == ["the latency model was not saved: nobody there"]
    assert not path.exists()


SUMS = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        body = json.dumps({"predictions": rows}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def served(path: Path, calls: int, profile: Path | None = None) -> list[str]:
    """A service with the real proxy that answers so many calls; what it said."""
    said: list[str] = []
    options = LocalOptions(
        (sys.executable, "-c", SUMS, "{port}"),
        settings=ServingSettings(slo_s=20.0),
        control=FakeCpu(limit_cores=8.0),
        profile=profile,
        save_profile=path,
        output=lambda _: None,
        say=said.append,
    )

    def call(url: str) -> None:
        with urllib.request.urlopen(f"{url}/v1/models/m:predict", b'{"instances": [1]}', timeout=30) as answer:
            assert json.loads(answer.read()) == {"predictions": [1]}

    async def main() -> None:
        async with LocalService(options) as service:
            for _ in range(calls):
                await asyncio.to_thread(call, service.url)

    asyncio.run(main())
    return said


def test_what_one_run_has_learned_starts_the_next_one_warm(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert served(first, 4)[-1].endswith(f"calls is in {first}")
    learned = json.loads(first.read_text())["samples"]
    assert learned >= 2
    assert served(second, 3, profile=first)[-1].endswith(f"calls is in {second}")
    assert json.loads(second.read_text())["samples"] > learned
