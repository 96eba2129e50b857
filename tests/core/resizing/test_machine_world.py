"""A pod's resize against a kubelet that lags, defers, refuses and fails, and an API server that loses answers."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from knative_sponge.core.resizing.facts import ResizePhase
from tests.core.resizing.resizing import World

SIZES = st.sampled_from([0.1, 0.333, 0.5, 0.9, 0.995, 1.0, 1.005, 1.5, 2.0, 4.0])


class AnyHistory(RuleBasedStateMachine):
    """The world checks, with each command, what must hold for it; here is what must hold always and in the end."""

    @initialize(granularity=st.sampled_from([0.001, 0.01]))
    def begin(self, granularity: float) -> None:
        self.world = World(granularity=granularity)
        self.world.watch.append(self.world.object())

    @rule(cores=SIZES)
    def want(self, cores: float) -> None:
        self.world.want(cores)

    @rule(due=st.booleans())
    def want_more(self, due: bool) -> None:
        self.world.want_more(due=due)

    @rule(cores=SIZES, sync=st.booleans())
    def resize_behind_the_watch(self, cores: float, sync: bool) -> None:
        """A whole patch of which the watch shows nothing yet."""
        self.world.want(cores)
        self.world.advance(1.0)
        if self.world.in_flight:
            self.world.answer("done")
        if sync:
            self.world.sync()

    @precondition(lambda self: self.world.in_flight)
    @rule(how=st.sampled_from(["done", "done", "done", "lost", "busy", "conflict", "refused", "quota"]))
    def answer(self, how: str) -> None:
        self.world.answer(how)  # type: ignore[arg-type]

    @precondition(lambda self: self.world.watch)
    @rule()
    def deliver(self) -> None:
        self.world.deliver()

    @rule(mood=st.sampled_from(["works", "works", "defers", "refuses", "fails"]))
    def sync(self, mood: str) -> None:
        self.world.mood = mood  # type: ignore[assignment]
        self.world.sync()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 2.5, 11.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(up=st.booleans())
    def proxy(self, up: bool) -> None:
        if up and not self.world.proxy_up:
            self.world.proxy_up = True
            self.world.restart_proxy()
        self.world.proxy_up = up

    @rule(applied=st.booleans())
    def restart_controller(self, applied: bool) -> None:
        if self.world.in_flight and applied:
            self.world.apply(self.world.in_flight[0])
        self.world.restart_controller()

    @invariant()
    def the_proxy_never_counts_on_more_than_is_in_force(self) -> None:
        if self.world.proxy_up and self.world.proxy_informed:
            assert self.world.proxy.cores <= self.world.quota + 0.011

    @invariant()
    def what_may_be_taken_of_the_node_is_counted(self) -> None:
        world = self.world
        if world.in_flight:
            assert world.resize.committed >= world.in_flight[0]

    def teardown(self) -> None:
        """Once all work again and the target is quiet, it is reached, the proxy knows, and nobody says another word."""
        world = self.world
        world.mood = "works"
        if not world.proxy_up:
            world.proxy_up = True
            world.restart_proxy()
        world.want(2.5)
        world.run(200)
        assert world.resize.phase is ResizePhase.STEADY
        assert world.spec == 2.5
        assert world.quota == pytest.approx(2.5)
        assert (world.proxy.cores, world.proxy.coming) == (2.5, None)
        assert world.wake_s is None
        assert not world.extra
        said = len(world.commands)
        world.want(2.5)
        world.run(100)
        assert len(world.commands) == said


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40)
