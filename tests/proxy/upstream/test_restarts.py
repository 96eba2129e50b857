"""The proxy on real ports while its model server is killed, hung, and started again, in any order (docs/design.md §6)."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.proxy.live import Live, live

ALLOWED = {
    (502, "upstream-refused"), (502, "upstream-error"), (504, "timeout"), (504, "hopeless"), (504, "expired"),
}  # fmt: skip


class Restarts(RuleBasedStateMachine):
    """Requests are sent in volleys; between and during them the model server comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.context: AbstractAsyncContextManager[Live] = live({"slo": "600ms"})
        self.proxy = self.run(self.context.__aenter__())
        self.names = itertools.count()
        self.flying: dict[str, asyncio.Task[tuple[int, str | None, Any]]] = {}

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(asyncio.wait_for(coroutine, 20))

    def teardown(self) -> None:
        self.land()
        self.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    @rule(count=st.integers(1, 12), slo_ms=st.sampled_from([150, 600]))
    def send(self, count: int, slo_ms: int) -> None:
        async def start() -> None:
            for _ in range(count):
                name = f"r{next(self.names)}"
                self.flying[name] = asyncio.create_task(self.proxy.predict(name, slo_ms=slo_ms))
            await asyncio.sleep(0)

        self.run(start())

    @rule(turns=st.integers(1, 30))
    def let_some_happen(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turn())

    @rule()
    def kill(self) -> None:
        self.run(self.proxy.model.kill())

    @precondition(lambda self: not self.proxy.model.up)
    @rule()
    def start(self) -> None:
        self.run(self.proxy.model.start())

    @rule(hung=st.booleans())
    def hang(self, hung: bool) -> None:
        self.proxy.model.hung = hung

    @rule()
    def land(self) -> None:
        """Every request in flight ends, each with its own answer or one clear Reason."""

        async def gather() -> list[tuple[int, str | None, Any]]:
            return await asyncio.gather(*self.flying.values())

        for name, (status, reason, body) in zip(list(self.flying), self.run(gather()), strict=True):
            if status == 200:
                assert body == {"predictions": [{"of": name}]}
                assert self.proxy.model.seen[name] == 1
            else:
                assert (status, reason) in ALLOWED
                assert body["error"]
                assert body["reason"] == reason
        self.flying.clear()

    @precondition(lambda self: not self.proxy.model.up)
    @rule()
    def recover(self) -> None:
        """After a restart the very next request is served."""
        self.land()
        self.proxy.model.hung = False
        self.run(self.proxy.model.start())
        assert self.run(self.proxy.predict("again"))[0] == 200
        del self.proxy.model.seen["again"]

    @invariant()
    def nothing_was_sent_twice(self) -> None:
        assert all(count == 1 for count in self.proxy.model.seen.values())


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=40, stateful_step_count=15)
