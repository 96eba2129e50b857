"""How memory and files are shared between connections and what is on them."""

from __future__ import annotations

import pytest

from knative_sponge.byte_budget import DEFAULT
from knative_sponge.proxy.http.bounds import BASE_BYTES, CONNECTION_BYTES, memory_budget, shares

MIB = 2**20


@pytest.mark.parametrize(
    ("limit", "budget"),
    [(None, DEFAULT), (400 * MIB, (400 - 64) * MIB * 3 // 4), (1, 8 * MIB), (BASE_BYTES + 100 * MIB, 75 * MIB)],
)
def test_the_budget_follows_the_containers_limit(limit: int | None, budget: int) -> None:
    assert memory_budget(limit) == budget


@pytest.mark.parametrize(
    ("memory", "files", "most", "connections"),
    [
        (DEFAULT, 2**20, None, 4096),
        (DEFAULT, 1024, None, 256),
        (DEFAULT, 256, None, 32),
        (DEFAULT, 100, None, 8),
        (DEFAULT, 2**20, 100, 100),
        (DEFAULT, 256, 5000, 32),
        (8 * MIB, 2**20, None, 64),
    ],
    ids=[
        "by memory",
        "1,024 files",
        "256 files",
        "too few files",
        "as told",
        "told more than files allow",
        "little memory",
    ],
)
def test_connections_are_as_many_as_memory_and_files_allow(
    memory: int, files: int, most: int | None, connections: int
) -> None:
    budget, limit = shares(memory, files, most)
    assert limit.most == connections
    assert budget.limit + limit.most * CONNECTION_BYTES <= memory
    assert budget.limit >= memory // 4
