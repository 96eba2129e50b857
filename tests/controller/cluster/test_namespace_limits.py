"""What one replica knows of the administrator's limits, before and after it has read them."""

from __future__ import annotations

from typing import Any

import pytest

from knative_sponge.controller.cluster.limits import NO_LIMITS, Limits
from knative_sponge.controller.cluster.namespace_limits import PATIENCE_S, NamespaceLimits
from tests.controller.cluster.capacity_kit import Feed


class World:
    """A ConfigMap as an informer tells of it."""

    def __init__(self) -> None:
        self.config = Feed(lambda item: item)
        self.now = 0.0
        config: Any = self.config
        self.limits = NamespaceLimits(config, clock=lambda: self.now)
        self.told = 0

    def put(self, **data: str) -> None:
        metadata = {"name": "knative-sponge-limits", "namespace": "knative-sponge", "resourceVersion": "1"}
        self.config.put({"metadata": metadata, "data": data})

    def tell(self) -> None:
        self.told += 1


def test_before_the_first_read_nothing_is_known_and_the_replica_is_not_ready_for_a_while() -> None:
    world = World()
    assert world.limits.known_of("shop") is None
    assert [world.limits.ready] == [False]
    world.now = PATIENCE_S
    assert world.limits.ready, "pods with Knative's own proxy would serve worse"
    assert world.limits.known_of("shop") is None


def test_without_a_config_map_there_are_no_bounds() -> None:
    world = World()
    world.config.synced.set()
    assert world.limits.ready
    assert world.limits.known_of("shop") == NO_LIMITS


def test_a_bound_holds_from_when_it_is_written_until_it_goes() -> None:
    world = World()
    world.config.synced.set()
    forget = world.limits.subscribe(world.tell)
    world.put(shop="max-cores: 2")
    assert world.limits.known_of("shop") == world.limits.of("shop") == Limits(max_cores=2.0)
    world.put(shop="max-cores: 2  # as before")
    assert world.told == 1, "told of other bounds, and of nothing else"
    world.config.remove(("knative-sponge", "knative-sponge-limits"))
    assert world.limits.known_of("shop") == NO_LIMITS
    forget()
    world.put(shop="max-cores: 2")
    assert world.told == 2


def test_an_entry_that_cannot_be_read_is_told_once_and_the_last_good_one_holds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.put(shop="max-cores: 2")
    for _ in range(3):
        world.put(shop="max-cores: lots", other="priority: 1")
    assert world.limits.of("shop") == Limits(max_cores=2.0)
    assert world.limits.of("other") == Limits(priority=1)
    assert world.limits.faults.keys() == {"shop"}
    assert caplog.text.count("limits of shop: max-cores: expected") == 1


def test_what_was_there_before_is_known_at_once() -> None:
    world = World()
    world.put(default="priority: 1")
    config: Any = world.config
    assert NamespaceLimits(config).of("shop") == Limits(priority=1)
