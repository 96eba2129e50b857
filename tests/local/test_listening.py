"""Which port a process tree listens on, found in /proc, with real processes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.local import listening as module
from knative_sponge.local.listening import PortSearch, listening, ports_in_words
from knative_sponge.local.process import ChildTree
from tests.local.guarded_tree import run_guarded
from tests.local.waiting import until

HOST = "127.0.0.1"
HTTP = """
import http.server, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, kind = self.server.page
        self.send_response(status); self.send_header("content-type", kind); self.send_header("content-length", "0")
        self.end_headers()
    log_message = lambda *_: None
def serve(port, status=404, kind="text/html"):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.page = status, kind
    threading.Thread(target=server.serve_forever).start()
"""


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def with_tree(code: str, then: Callable[[ChildTree], Awaitable[None]], *ports: int) -> None:
    async def main() -> None:
        async with run_guarded([sys.executable, "-c", HTTP + code, *map(str, ports)]) as tree:
            await then(tree)

    asyncio.run(main())


def test_the_ports_of_the_whole_tree_are_found_and_no_others() -> None:
    code = "import subprocess; serve(sys.argv[1]); subprocess.run([sys.executable, '-m', 'http.server', sys.argv[2]])"
    first, second = free_port(), free_port()

    async def then(tree: ChildTree) -> None:
        with socket.create_server((HOST, 0)):
            await until(lambda: listening(tree.guardian) == {first, second}, "both are seen, ours is not")

    with_tree(code, then, first, second)


def found(
    code: str, *ports: int, expected: int, public: int = 1, may_differ: bool = True, may_end: bool = True
) -> tuple[int | None, list[str]]:
    """The port that is found, None when none is by the time the others are settled, and what is said."""
    said: list[str] = []
    result: list[int | None] = []

    async def then(tree: ChildTree) -> None:
        await until(lambda: len(listening(tree.guardian)) >= len(ports) - 1, "it listens")
        search = asyncio.ensure_future(PortSearch(HOST, expected, tree.guardian, public, may_differ, said.append).run())
        done, _ = await asyncio.wait({search}, timeout=10.0 if may_end else 1.0)
        search.cancel()
        result.append(search.result() if done else None)

    with_tree(code, then, *ports)
    return result[0], said


@pytest.fixture(autouse=True)
def _settled_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TELLS_S", 0.2)
    monkeypatch.setattr(module, "_SPEAKS_S", 0.4)
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.1)
    monkeypatch.setattr(module, "_LOOK_S", 0.05)


def test_a_server_that_does_as_it_is_told_is_found_where_it_was_told() -> None:
    port = free_port()
    assert found("serve(sys.argv[1])", port, expected=port) == (port, [])


def test_a_server_on_its_own_port_is_found_and_that_is_said() -> None:
    port, expected = free_port(), free_port()
    told = (
        f"the model server does not listen on port {expected} that it was told, but on {port}: requests go there "
        "(--server-port decides otherwise)"
    )
    assert found("serve(sys.argv[1])", port, expected=expected) == (port, [told])


CLOSING = (
    "serve(sys.argv[1]); import socket; s = socket.create_server(('127.0.0.1', int(sys.argv[2])));"
    "threading.Thread(target=lambda: [s.accept()[0].close() for _ in iter(int, 1)]).start()"
)


@pytest.mark.parametrize(
    "code",
    [
        CLOSING,
        "serve(sys.argv[1], 200); serve(sys.argv[2], 404)",
        "serve(sys.argv[1]); serve(sys.argv[2], 200, 'text/plain; version=0.0.4; charset=utf-8')",
    ],
    ids=["beside gRPC", "beside an administration port", "beside a page of metrics"],
)
def test_of_several_ports_the_model_servers_is_taken(code: str) -> None:
    port, other = free_port(), free_port()
    assert found(code, port, other, expected=free_port())[0] == port


def test_a_port_that_says_whether_it_is_ready_is_taken_before_one_that_only_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SPEAKS_S", 600.0)
    ready, other = free_port(), free_port()
    assert found("serve(sys.argv[1], 200)", ready, expected=free_port())[0] == ready
    assert found("serve(sys.argv[1], 404)", other, expected=free_port(), may_end=False)[0] is None


def test_between_two_that_look_alike_nobody_guesses() -> None:
    assert found(
        "serve(sys.argv[1]); serve(sys.argv[2])", free_port(), free_port(), expected=free_port(), may_end=False
    ) == (None, [])


def test_a_port_that_its_user_named_is_not_exchanged() -> None:
    assert found("serve(sys.argv[1])", free_port(), expected=free_port(), may_differ=False, may_end=False) == (None, [])


def test_a_server_that_still_computes_may_yet_open_the_expected_port() -> None:
    code = "serve(sys.argv[1])\nwhile True: pass"
    assert found(code, free_port(), expected=free_port(), may_end=False) == (None, [])


def test_a_server_on_the_port_meant_for_clients_is_told_at_once() -> None:
    port = free_port()
    with pytest.raises(SettingError, match=f"^port: {port} is not allowed; .*does not listen on itself"):
        found("serve(sys.argv[1])", port, expected=free_port(), public=port)


def test_what_is_open_is_said_in_words() -> None:
    assert ports_in_words(frozenset()) == "; it listens on no port"
    assert ports_in_words(frozenset({82, 81})) == (
        "; it listens on 81, 82: name the right one with --server-port, or write {port} into its command"
    )
