"""The body of `PUT /sponge/v1/cores`: which size a model server has or gets."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from knative_sponge.core.resizing.phase import Phase
from knative_sponge.wire.message import decoder

__all__ = ["CoresMessage", "Phase", "decode_cores", "encode_cores"]

_Cores = Annotated[float, msgspec.Meta(ge=0.001, le=4096)]


class CoresMessage(msgspec.Struct, frozen=True):
    """cores: the size. phase: how far the change to it has come. reach: the most cores that one resize could give the pod on
    its node now; UNSET where that is not known, so that what was said before stands."""

    cores: _Cores
    phase: Phase
    reach: _Cores | msgspec.UnsetType = msgspec.UNSET


def encode_cores(message: CoresMessage) -> bytes:
    """JSON."""
    return msgspec.json.encode(message)


decode_cores: Final = decoder(CoresMessage, "a size")
"""Raises WireError."""
