"""Namespaces whose quota has refused a size lately. No pod of them takes cores ahead of need. Pure."""

from __future__ import annotations

from typing import Final

_REMEMBER_S: Final = 600.0
"""A refusal counts for so long."""


class QuotaRefusals:
    """now: seconds, never falling."""

    def __init__(self) -> None:
        self._refused_s: dict[str, float] = {}

    def refused(self, namespace: str, now: float) -> None:
        """A quota of the namespace has refused a size."""
        self._refused_s[namespace] = now

    def tight(self, namespace: str, now: float) -> bool:
        """Was a size refused in the namespace in the last ten minutes?"""
        at_s = self._refused_s.get(namespace)
        if at_s is not None and now - at_s > _REMEMBER_S:
            del self._refused_s[namespace]
            return False
        return at_s is not None
