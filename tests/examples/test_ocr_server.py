"""The example server as its users meet it: a process and its port."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ocr_server.regions import MAX_BOXES

from knative_sponge.profile.inputs import Picture, pictures
from tests.examples.conftest import SERVER

PIXELS = 160


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    port: int

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), response.headers.get("inference-header-content-length")
        finally:
            connection.close()

    def infer(self, files: Sequence[bytes]) -> tuple[int, Any]:
        """Status and, per output, the rows; or the error's text."""
        tail = b"".join(len(file).to_bytes(4, "little") + file for file in files)
        tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [len(files)]}
        tensor["parameters"] = {"binary_data_size": len(tail)}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        status, answer, length = self.ask("POST", "/v2/models/ocr/infer", head + tail, headers)
        if length is None:
            return status, json.loads(answer)["error"]
        at, rows = int(length), {}
        for output in json.loads(answer[:at])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            rows[output["name"]] = np.frombuffer(answer[at : at + size], "<f4").reshape(output["shape"])
            at += size
        assert at == len(answer)
        return status, rows


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), "--port", str(port), "--pixels", str(PIXELS)]
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < until
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Server(port)
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)


@pytest.fixture(scope="module")
def photos() -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures()}


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/ocr/ready"])
def test_a_server_that_answers_is_live_and_ready(server: Server, path: str) -> None:
    assert server.ask("GET", path)[0] == 200


def test_metadata_describe_what_infer_takes_and_gives(server: Server, photos: dict[str, Picture]) -> None:
    assert json.loads(server.ask("GET", "/v2")[1])["extensions"] == ["binary_tensor_data"]
    model = json.loads(server.ask("GET", "/v2/models/ocr")[1])
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    _, rows = server.infer([photos["page-768"].jpeg])
    assert {output["name"]: output["shape"][1:] for output in model["outputs"]} == {
        name: list(array.shape[1:]) for name, array in rows.items()
    }


def test_a_batchs_answers_are_those_of_its_images_alone(server: Server, photos: dict[str, Picture]) -> None:
    files = [photo.jpeg for photo in photos.values()][:7]
    status, batch = server.infer(files)
    assert status == 200
    for index, file in enumerate(files):
        _, alone = server.infer([file])
        for name, rows in alone.items():
            assert np.array_equal(rows[0], batch[name][index])


def test_text_is_found_where_text_is(server: Server, photos: dict[str, Picture]) -> None:
    _, rows = server.infer([photos["page-1600"].jpeg, photos["rocket-960"].jpeg])
    page, rocket = rows["boxes"]
    assert rows["text_share"][0, 0] > 0.05 > rows["text_share"][1, 0]
    lines = page[page[:, 4] > 0]
    assert 3 <= len(lines) <= MAX_BOXES
    assert np.all(lines[:, [0, 1]] < lines[:, [2, 3]])
    assert np.all(lines[:, [2, 3]] <= [1600, 796])
    assert lines[:, 2].max() > 1200
    assert np.count_nonzero(rocket[:, 4]) == 0


@pytest.mark.parametrize("file", [b"", b"no image", b"\xff\xd8\xff\xe0 cut short"])
def test_a_file_that_is_no_image_is_the_clients_error(server: Server, photos: dict[str, Picture], file: bytes) -> None:
    status, error = server.infer([photos["page-768"].jpeg, file])
    assert status == 400
    assert "JPEG" in error


def test_an_image_cut_in_the_middle_is_the_clients_error(server: Server, photos: dict[str, Picture]) -> None:
    jpeg = photos["page-768"].jpeg
    assert server.infer([jpeg[: len(jpeg) // 2]])[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/models/other", 404), ("GET", "/v2/models/ocr/infer", 405), ("POST", "/v2/models/ocr/infer", 400)],
)
def test_every_error_is_json_with_a_reason(server: Server, method: str, path: str, status: int) -> None:
    got, body, _ = server.ask(method, path)
    assert got == status
    assert json.loads(body)["error"]


def test_the_cpu_hook_answers_with_the_threads_it_set(server: Server, photos: dict[str, Picture]) -> None:
    most = os.cpu_count() or 1
    for cores, threads in ((0.4, 1), (1.2, min(2, most)), (1, 1), (most, most)):
        status, answer, _ = server.ask("POST", "/cpu", json.dumps({"cores": cores}).encode())
        assert (status, json.loads(answer)) == (200, {"cores": cores, "threads": threads})
        assert server.infer([photos["page-768"].jpeg] * 3)[0] == 200


@pytest.mark.parametrize(
    "wish", [b"", b"2", b"{}", b'{"cores": "2"}', b'{"cores": 0}', b'{"cores": true}', b"[]", b'{"cores": NaN}']
)
def test_a_core_count_that_is_none_is_refused(server: Server, wish: bytes) -> None:
    status, body, _ = server.ask("POST", "/cpu", wish)
    assert status == 400
    assert "cores" in json.loads(body)["error"]
