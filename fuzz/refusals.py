"""What every refusal must be, whichever target is refused. Knows only the errors' tree."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from knative_sponge.errors import RequestFailed, SettingError

MOST_SHOWN: Final = 200
"""Characters of input that an error text may repeat."""
_OWN_WORDS: Final = 600
"""Characters that a text of ours has at most besides."""


def check_refusal(error: RequestFailed, statuses: Collection[int]) -> None:
    """A status that says why, and a text that is no echo of what was sent."""
    assert error.status in statuses, f"{error.status}: {error}"[:300]
    check_text(str(error))


def check_text(text: str) -> None:
    """A text that is no echo of what was sent."""
    assert len(text) <= MOST_SHOWN + _OWN_WORDS, f"{len(text)} characters: {text[:100]}…"


def check_fault(error: SettingError) -> None:
    """A setting's refusal names it and what is allowed, and is no echo either."""
    assert error.name
    assert error.allowed
    check_text(str(error))
