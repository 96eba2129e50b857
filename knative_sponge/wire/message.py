"""What all messages of the admin port share: the numbers that can be, and the one error for what cannot.

Whatever else runs in a pod can speak on its address. So a message with a number that cannot be is no message, and nobody
further on has to reckon with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec

from knative_sponge.errors import WireError

Cores = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Rates, seconds, parameters of a curve."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""What a float holds exactly. Python's integers have no end, and what computes with a larger one may fail."""

_SHOWN: Final = 200
"""Characters of an error: it may quote what a stranger sent."""

_Message = TypeVar("_Message")


def decoder(kind: type[_Message], name: str) -> Callable[[bytes], _Message]:
    """A function from JSON to `kind`, which raises WireError ("not <name>: …") for everything else. Unknown keys are passed
    over."""
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes) -> _Message:
        try:
            return decode(data)
        except (ValueError, OverflowError, RecursionError) as error:
            raise WireError(f"not {name}: {str(error)[:_SHOWN]}") from error

    return read
