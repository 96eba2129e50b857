"""Which providers there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from e2e.cluster.bare.provider import Bare
from e2e.cluster.kind.provider import Kind
from e2e.cluster.provider import Provider

PROVIDERS: Final[Mapping[str, Callable[[], Provider]]] = {"bare": Bare, "kind": Kind}


def provider(name: str) -> Provider:
    """The provider of that name. Raises KeyError."""
    return PROVIDERS[name]()
