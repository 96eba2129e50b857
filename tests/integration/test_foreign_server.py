"""`sponge run` in front of a model server that is not ours: MLServer, from its own package, in its own environment."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PYTHON = os.environ.get("SPONGE_FOREIGN_PYTHON", "")
MODEL = Path(__file__).parent / "mlserver_model"

pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(not PYTHON, reason="SPONGE_FOREIGN_PYTHON names no environment with MLServer (make test does)"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Served:
    """Where to reach the model through the proxy, and past it."""

    through: str
    direct: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("mlserver")
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    ports = {name: free_port() for name in ("public", "server", "grpc", "metrics")}
    settings = {  # the file wins over the variables that sponge sets
        "host": "127.0.0.1",
        "http_port": ports["server"],
        "grpc_port": ports["grpc"],
        "metrics_port": ports["metrics"],
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    sponge = [sys.executable, "-c", "import sys; from knative_sponge.cli.main import main; sys.exit(main())"]
    options = ["run", "--slo", "20s", "--port", str(ports["public"]), "--server-port", str(ports["server"])]
    command = [*sponge, *options, "--", str(Path(PYTHON).parent / "mlserver"), "start", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "serving on" in line:
                break
        else:
            pytest.fail("sponge run ended: " + "".join(seen))
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        base = "http://127.0.0.1:{}/v2/models/affine"
        served = Served(base.format(ports["public"]), base.format(ports["server"]))
        yield served  # "serving" is said when the model is loaded, not when the port is open
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        drain.wait(10)


def request(number: int, rng: random.Random) -> dict[str, Any]:
    rows = rng.choice([1, 1, 1, 2, 5])
    numbers = [rng.uniform(-1e6, 1e6) for _ in range(rows * 3)]
    return {
        "id": f"request-{number}",
        "inputs": [
            {"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": numbers},
            {"name": "label", "shape": [rows, 1], "datatype": "BYTES", "data": [f"é{number}-{i}" for i in range(rows)]},
        ],
    }


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], int]:
    async with session.post(f"{url}/infer", json=body) as answer:
        return answer.status, await answer.json(), int(answer.headers.get("sponge-batch", 0))


def test_batched_answers_equal_unbatched_answers_field_by_field(served: Served) -> None:
    async def compare() -> int:
        rng = random.Random(7)
        bodies = [request(number, rng) for number in range(60)]
        largest = 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            alone = [await post(session, served.direct, body) for body in bodies]
            together = await asyncio.gather(*(post(session, served.through, body) for body in bodies))
        for (status, expected, _), (own_status, answer, batch) in zip(alone, together, strict=True):
            assert (own_status, answer) == (status, expected)
            largest = max(largest, batch)
        return largest

    assert asyncio.run(compare()) > 5, "concurrent requests were merged"


def test_a_request_the_model_refuses_does_not_disturb_the_others(served: Served) -> None:
    async def mixed() -> None:
        rng = random.Random(8)
        bodies = [request(number, rng) for number in range(12)]
        bodies[5]["inputs"][1]["data"][0] = "poison"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            answers = await asyncio.gather(*(post(session, served.through, body) for body in bodies))
        for number, (status, answer, _) in enumerate(answers):
            if number == 5:
                assert (status, answer) == (400, {"error": "one of the labels is poison"})
            else:
                assert (status, answer["id"]) == (200, f"request-{number}")

    asyncio.run(mixed())


def test_everything_else_the_server_serves_passes_through(served: Served) -> None:
    async def look() -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("", "/ready"):
                async with session.get(served.through + path) as own, session.get(served.direct + path) as other:
                    assert (own.status, await own.read()) == (other.status, await other.read())

    asyncio.run(look())
