"""One node as the divider knows it: its last division, and whether there is a reason for another one. Decides no size."""

from __future__ import annotations

import asyncio
import math

from knative_sponge.controller.reporting.rows import NodeRow


class NodeState:
    """A node with managed pods, from its first division on. rest_s: how long a node that has not changed is left alone, unless
    something is told of it. now: monotonic seconds that never go back."""

    __slots__ = ("_inputs", "_refinement", "_rest_s", "_rests_until_s", "_row")

    def __init__(self, rest_s: float) -> None:
        if not rest_s >= 0:
            raise ValueError(f"rest_s must not be negative, not {rest_s}")
        self._rest_s = rest_s
        self._row: NodeRow | None = None
        self._inputs: object | None = None
        self._rests_until_s = -math.inf
        self._refinement: asyncio.Task[None] | None = None

    @property
    def row(self) -> NodeRow | None:
        """The last division; None before the first one that came to an end."""
        return self._row

    @property
    def short(self) -> bool:
        """Did the last division give less than was wanted?"""
        return self._row is not None and self._row.short

    @property
    def refining(self) -> bool:
        """Is a better division still being looked for? Then the node is not divided."""
        return self._refinement is not None

    def divided(self, row: NodeRow, inputs: object | None) -> None:
        """The node was divided. inputs: all that the division follows from; None if it has to be divided again in any case."""
        self._row = row
        self._inputs = inputs
        self._rests_until_s = -math.inf

    def unchanged(self, inputs: object, now: float) -> bool:
        """Does the last division follow from these inputs? Then the node rests."""
        if inputs != self._inputs:
            return False
        self._rests_until_s = now + self._rest_s
        return True

    def rests(self, now: float) -> bool:
        """Was it found unchanged lately?"""
        return now < self._rests_until_s

    def refine(self, refinement: asyncio.Task[None]) -> None:
        """A better division is being looked for. refinement: calls `refined` at its end, whatever that is."""
        self._refinement = refinement

    def refined(self) -> None:
        """The search has ended."""
        self._refinement = None

    def close(self) -> None:
        """End the search, if there is one."""
        if self._refinement is not None:
            self._refinement.cancel()
