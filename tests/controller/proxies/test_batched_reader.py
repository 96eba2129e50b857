"""Many sockets are read together, none is forgotten, and none stops the others."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from knative_sponge.controller.proxies import batched_reader as intake
from knative_sponge.controller.proxies.batched_reader import BatchedReader
from tests.controller.admission.webhook_kit import LOOPS
from tests.controller.revision_kit import until

Body = Callable[["Peers"], Awaitable[None]]


class Peers:
    """Sockets that are read, and their other ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.intake = BatchedReader()
        self.read: list[socket.socket] = []
        self.ends: list[socket.socket] = []
        self.took: defaultdict[int, list[bytes]] = defaultdict(list)
        self.rounds: list[list[int]] = []

    def add(self) -> int:
        near, far = socket.socketpair()
        self._stack.enter_context(near)
        self._stack.enter_context(far)
        near.setblocking(False)
        number = len(self.read)
        self.read.append(near)
        self.ends.append(far)
        self.intake.add(near, lambda data: self._take(number, data))
        return number

    def _take(self, number: int, data: bytes) -> None:
        self.took[number].append(data)
        if not data:
            self.remove(number)

    def remove(self, number: int) -> None:
        self.intake.remove(self.read[number])
        self.read[number].close()


@contextmanager
def _peers() -> Iterator[Peers]:
    with ExitStack() as stack:
        yield Peers(stack)


@pytest.fixture(params=LOOPS)
def among(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Runs a test's body on each kind of event loop."""

    def run(body: Body) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                with _peers() as peers:
                    await body(peers)
                    for number, sock in enumerate(peers.read):
                        if sock.fileno() >= 0:
                            peers.remove(number)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return run


def test_what_each_socket_says_is_taken(among: Callable[[Body], None]) -> None:
    async def body(peers: Peers) -> None:
        for number in range(50):
            peers.ends[peers.add()].send(f"{number}".encode())
        await until(lambda: len(peers.took) == 50)
        assert peers.took == {number: [f"{number}".encode()] for number in range(50)}
        peers.ends[7].send(b"x" * 40_000)
        await until(lambda: sum(map(len, peers.took[7])) == 40_001)

    among(body)


def test_after_a_rest_it_goes_on(monkeypatch: pytest.MonkeyPatch, among: Callable[[Body], None]) -> None:
    monkeypatch.setattr(intake, "REST_S", 0.02)

    async def body(peers: Peers) -> None:
        peers.add()
        for turn in range(1, 4):
            peers.ends[0].send(b"x")
            await until(lambda: len(peers.took[0]) == turn)  # noqa: B023
            await until(lambda: peers.intake._timer is None)

    among(body)


def test_the_end_of_a_socket_is_told_once(among: Callable[[Body], None]) -> None:
    async def body(peers: Peers) -> None:
        peers.add()
        peers.add()
        peers.ends[0].send(b"last")
        peers.ends[0].close()
        await until(lambda: peers.took[0][-1:] == [b""])
        peers.ends[1].send(b"more")
        await until(lambda: peers.took[1] == [b"more"])
        assert peers.took[0] == [b"last", b""]

    among(body)


def test_a_socket_that_is_removed_while_others_are_read_is_not_read(among: Callable[[Body], None]) -> None:
    async def body(peers: Peers) -> None:
        first, second = peers.add(), peers.add()

        def take(data: bytes) -> None:
            peers.took[first].append(data)
            if peers.read[second].fileno() >= 0:
                peers.remove(second)

        peers.intake.remove(peers.read[first])
        peers.intake.add(peers.read[first], take)
        peers.ends[first].send(b"x")
        peers.ends[second].send(b"x")
        await until(lambda: peers.took[first])
        peers.ends[first].send(b"y")
        await until(lambda: len(peers.took[first]) == 2)
        assert len(peers.took[second]) <= 1

    among(body)


def test_who_cannot_take_does_not_stop_the_others(among: Callable[[Body], None]) -> None:
    async def body(peers: Peers) -> None:
        first, second = peers.add(), peers.add()

        def refuse(_data: bytes) -> None:
            raise ZeroDivisionError

        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
        peers.intake.remove(peers.read[first])
        peers.intake.add(peers.read[first], refuse)
        for _ in range(3):
            peers.ends[first].send(b"x")
            peers.ends[second].send(b"x")
            before = len(peers.took[second])
            await until(lambda: len(peers.took[second]) > before)  # noqa: B023
        assert {type(failure) for failure in failures} == {ZeroDivisionError}

    among(body)


def test_with_the_last_socket_nothing_is_left_open(among: Callable[[Body], None]) -> None:
    async def body(peers: Peers) -> None:
        for _ in range(3):
            peers.remove(peers.add())
            assert peers.intake._poll is None
            number = peers.add()
            peers.ends[number].send(b"x")
            await until(lambda: peers.took[number])  # noqa: B023
            peers.remove(number)
            assert peers.intake._poll is None

    among(body)
