"""Whether a server is ready, asked over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from knative_sponge.local.readiness import Answer, Verdict, ask, look, wait_ready

HOST = "127.0.0.1"


class Server:
    """Answers each path with a status, or with raw bytes; all others with 404."""

    def __init__(self, answers: Mapping[str, int | bytes], default: int | bytes = 404) -> None:
        self.answers = dict(answers)
        self.default = default
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split()[1].decode())
        answer = self.answers.get(self.asked[-1], self.default)
        if isinstance(answer, int):
            answer = b"HTTP/1.1 %d Whatever\r\ncontent-length: 0\r\n\r\n" % answer
        if answer == b"silence":
            await reader.read()  # until the other side leaves
        else:
            writer.write(answer)
        writer.close()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    async with await asyncio.start_server(server.serve, HOST) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


def waited(server: Server, path: str | None = None) -> tuple[str | None, list[str]]:
    """What says that the server is ready, and the answers on the way; each answer that is not ready turns to 200."""
    heard: list[str] = []

    async def main() -> str | None:
        async with serving(server):

            def not_ready(asked: str, answer: Answer) -> None:
                heard.append(f"{asked} {answer}")
                server.answers[asked] = 200

            return await wait_ready(HOST, server.port, path, not_ready)

    return asyncio.run(main()), heard


@pytest.mark.parametrize(
    ("path", "status"), [("/v2/health/ready", 400), ("/v2/health/ready", 503), ("/readyz", 503), ("/health", 503)]
)
def test_a_server_that_loads_is_waited_for(path: str, status: int) -> None:
    assert waited(Server({path: status})) == (path, [f"{path} answers {status}"])


@pytest.mark.parametrize(
    "server",
    [
        Server({}),
        Server({}, default=405),
        Server({}, default=500),
        Server({}, default=401),
        Server({}, default=400),
        Server({}, default=b"\x00\x00\x06\x04\x00\x00\x00\x00\x00"),
        Server({}, default=b""),
    ],
    ids=[
        "no path",
        "no GET",
        "fails on all paths",
        "needs a key",
        "refuses all paths",
        "speaks HTTP/2",
        "closes at once",
    ],
)
def test_a_server_that_does_not_tell_is_ready_because_it_accepts(server: Server) -> None:
    assert waited(server) == (None, [])


def test_a_path_that_is_named_must_answer_whatever_it_says_meanwhile() -> None:
    assert waited(Server({}), "/up?x=1") == ("/up?x=1", ["/up?x=1 answers 404"])
    assert waited(Server({}, default=b""), "/up") == ("/up", ["/up does not speak HTTP/1.1"])


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_from_200_to_399_is_ready_as_for_the_kubelet(status: int) -> None:
    assert waited(Server({"/v2/health/ready": status})) == ("/v2/health/ready", [])


def test_the_first_path_that_is_there_decides_and_the_others_are_not_asked() -> None:
    server = Server({"/readyz": 200, "/health": 503})
    assert waited(server)[0] == "/readyz"
    assert server.asked == ["/v2/health/ready", "/readyz"]


def test_a_server_that_accepts_and_says_nothing_is_not_ready() -> None:
    async def main() -> None:
        async with serving(Server({}, default=b"silence")) as server:
            assert await ask(HOST, server.port, "/", answer_s=0.05) == Answer(Verdict.SILENT)

    asyncio.run(main())


def test_nobody_there_is_told_apart_from_not_ready() -> None:
    async def main() -> None:
        async with serving(Server({})) as server:
            port = server.port
        assert (await look(HOST, port))[1] == Answer(Verdict.REFUSED)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"])
def test_a_page_of_metrics_is_recognised(kind: str) -> None:
    page = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: 0\r\n\r\n".encode()

    async def main() -> None:
        async with serving(Server({"/": page, "/other": 200})) as server:
            assert (await ask(HOST, server.port, "/")).metrics
            assert not (await ask(HOST, server.port, "/other")).metrics

    asyncio.run(main())
