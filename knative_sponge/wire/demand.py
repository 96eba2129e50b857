"""A line of the demand stream: what a pod needs, as its proxy says it. Numbers are rounded by whoever makes the line."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from knative_sponge.wire.message import Amount, Cores, Count, decoder

_Size = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
_Seconds = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""May be below zero: late."""
_Params = tuple[Amount, Amount, Amount, Amount]


class DemandLine(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Version 1. Keys may be added and none is taken away: one that an older proxy does not send has a default.

    seq: grows with each line of a proxy. cores: what it plans with. coming: a larger size that was patched and is not
    confirmed. want: the least cores it needs. rate: arriving rows per second. rows: mean rows of a request. slack: seconds
    that the most urgent requests have on arrival; None before any. queued: rows that wait. running: batches with the model
    server. idle_s: seconds since the last request; None where nobody counts. met, missed: requests since its start that
    made, and did not make, their deadline. max_batch: rows per upstream call at most. params: γ, δ, ε, η of its latency
    model; cost: the same of what batches cost (`core/latency/quota_credit.py`). samples: measurements behind them. curve:
    (cores, rows per second expected to miss).
    """

    v: Literal[1] = 1
    seq: Count = 0
    cores: Cores
    coming: Amount | None = None
    want: Cores
    rate: Amount = 0.0
    rows: Amount = 1.0
    slack: _Seconds | None = None
    queued: Count = 0
    running: Count = 0
    idle_s: Amount | None = None
    met: Count = 0
    missed: Count = 0
    max_batch: Count = 1
    params: _Params | None = None
    cost: _Params | None = None
    samples: Count = 0
    curve: Annotated[tuple[tuple[_Size, Amount], ...], msgspec.Meta(max_length=256)] = ()


_encoder: Final = msgspec.json.Encoder()


def encode_demand(line: DemandLine) -> bytes:
    """One line of JSON, its end included."""
    return _encoder.encode(line) + b"\n"


decode_demand: Final = decoder(DemandLine, "a demand")
"""From one line, with or without its end. Raises WireError."""
