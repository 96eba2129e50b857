"""A pod's resize against a kubelet that lags, defers, refuses and fails, and an API server that loses answers."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from knative_sponge.core.resizing.facts import ResizePhase
from tests.core.resizing.simulated_cluster import SimulatedCluster

SIZES = st.sampled_from([0.1, 0.333, 0.5, 0.9, 0.995, 1.0, 1.005, 1.5, 2.0, 4.0])


class AnyHistory(RuleBasedStateMachine):
    """The cluster checks, with each command, what must hold for it; here is what must hold always and in the end."""

    @initialize(granularity=st.sampled_from([0.001, 0.01]))
    def begin(self, granularity: float) -> None:
        self.cluster = SimulatedCluster(granularity=granularity)
        self.cluster.watch.append(self.cluster.object())

    @rule(cores=SIZES)
    def want(self, cores: float) -> None:
        self.cluster.want(cores)

    @rule(due=st.booleans())
    def want_more(self, due: bool) -> None:
        self.cluster.want_more(due=due)

    @rule(cores=SIZES, sync=st.booleans())
    def resize_behind_the_watch(self, cores: float, sync: bool) -> None:
        """A whole patch of which the watch shows nothing yet."""
        self.cluster.want(cores)
        self.cluster.advance(1.0)
        if self.cluster.in_flight:
            self.cluster.answer("done")
        if sync:
            self.cluster.sync()

    @precondition(lambda self: self.cluster.in_flight)
    @rule(how=st.sampled_from(["done", "done", "done", "lost", "busy", "conflict", "refused", "quota"]))
    def answer(self, how: str) -> None:
        self.cluster.answer(how)  # type: ignore[arg-type]

    @precondition(lambda self: self.cluster.watch)
    @rule()
    def deliver(self) -> None:
        self.cluster.deliver()

    @rule(mood=st.sampled_from(["works", "works", "defers", "refuses", "fails"]))
    def sync(self, mood: str) -> None:
        self.cluster.mood = mood  # type: ignore[assignment]
        self.cluster.sync()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 2.5, 11.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.cluster.advance(seconds)

    @rule(up=st.booleans())
    def proxy(self, up: bool) -> None:
        if up and not self.cluster.proxy_up:
            self.cluster.proxy_up = True
            self.cluster.restart_proxy()
        self.cluster.proxy_up = up

    @rule(applied=st.booleans())
    def restart_controller(self, applied: bool) -> None:
        if self.cluster.in_flight and applied:
            self.cluster.apply(self.cluster.in_flight[0])
        self.cluster.restart_controller()

    @invariant()
    def the_proxy_never_counts_on_more_than_is_in_force(self) -> None:
        if self.cluster.proxy_up and self.cluster.proxy_informed:
            assert self.cluster.proxy.cores <= self.cluster.quota + 0.011

    @invariant()
    def what_may_be_taken_of_the_node_is_counted(self) -> None:
        cluster = self.cluster
        if cluster.in_flight:
            assert cluster.resize.committed >= cluster.in_flight[0]

    def teardown(self) -> None:
        """Once all work again and the target is quiet, it is reached, the proxy knows, and nobody says another word."""
        cluster = self.cluster
        cluster.mood = "works"
        if not cluster.proxy_up:
            cluster.proxy_up = True
            cluster.restart_proxy()
        cluster.want(2.5)
        cluster.run(200)
        assert cluster.resize.phase is ResizePhase.STEADY
        assert cluster.spec == 2.5
        assert cluster.quota == pytest.approx(2.5)
        assert (cluster.proxy.cores, cluster.proxy.coming) == (2.5, None)
        assert cluster.wake_s is None
        assert not cluster.extra
        said = len(cluster.commands)
        cluster.want(2.5)
        cluster.run(100)
        assert len(cluster.commands) == said


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40)
