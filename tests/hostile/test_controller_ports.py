"""The controller's ports with their real limits: whatever is thrown at them, it lives, judges reviews and is scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.hostile.controller_process import ControllerProcess, controller_process

MIB = 2**20
PORTS = ("webhook_port", "health_port", "metrics_port")
MOST = {"webhook_port": 64 * MIB, "health_port": 8 * MIB, "metrics_port": 8 * MIB}
"""What an attack may add to the process. The webhook holds 32 MiB of reviews, and 256 connections over TLS."""
MOST_CPU_S = 3.0
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /mutate/pods HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerProcess]:
    with controller_process(tmp_path_factory.mktemp("controller")) as process:
        assert process.review() == 200
        process.settle()
        yield process


@contextmanager
def attacked(
    controller: ControllerProcess, port: str, count: int, begin: bytes, piece: bytes = b"", size: int = 0
) -> Iterator[None]:
    """So many connections of one stranger on which so much is sent, as far as it is taken."""
    with ExitStack() as stack:
        for _ in range(count):
            with suppress(OSError):
                tls = port == "webhook_port"
                one = controller.connect_tls() if tls else controller.connect(getattr(controller, port))
                stack.enter_context(one)
                one.settimeout(2)
                one.sendall(begin)
                for _ in range(size // max(len(piece), 1)):
                    one.sendall(piece)
        yield


def everybody_is_answered(controller: ControllerProcess) -> None:
    assert controller.status(controller.health_port, "/healthz") == 200
    assert controller.review() == 200
    assert controller.status(controller.metrics_port, "/metrics") == 200


ATTACKS: dict[str, Callable[[ControllerProcess, str], object]] = {
    "heads of many fields": lambda on, port: attacked(on, port, 4, GET, b"x-a: " + b"b" * 1000 + b"\r\n", 16 * MIB),
    "heads of one field": lambda on, port: attacked(on, port, 4, GET + b"x-a: ", b"b" * 1000, 16 * MIB),
    "bodies of any length": lambda on, port: attacked(
        on, port, 4, POST + b"Content-Length: 100000000\r\n\r\n", b" " * 16384, 16 * MIB
    ),
    "bodies without end": lambda on, port: attacked(
        on, port, 4, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b" " * 16384 + b"\r\n", 16 * MIB
    ),
    "many unfinished bodies": lambda on, port: attacked(
        on, port, 40, POST + b"Content-Length: 4000000\r\n\r\n", b" " * 16384, 3 * MIB
    ),
    "idle connections": lambda on, port: attacked(on, port, 600, b""),
    "unfinished heads": lambda on, port: attacked(on, port, 600, GET + b"x-a: " + b"b" * 8000),
}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little_and_everybody_else_is_answered(
    controller: ControllerProcess, attack: str, port: str
) -> None:
    before, before_s = controller.rss(), controller.cpu_s()
    with ATTACKS[attack](controller, port):  # type: ignore[attr-defined]
        everybody_is_answered(controller)
        controller.settle()
        assert controller.rss() - before < MOST[port]
        assert controller.cpu_s() - before_s < MOST_CPU_S
    everybody_is_answered(controller)
