"""What `GET /sponge/v1/state` shows of one proxy: sizes, counts, settings and the model; nothing of any request."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from knative_sponge.wire.message import Amount, Cores, Count, decoder


class CoresState(msgspec.Struct, frozen=True, kw_only=True):
    """now: planned with. coming: a larger size that was patched and is not confirmed. want: the least needed. max: what the
    user allows, else the machine's. reach: the most that one resize can give; None where an older proxy does not say."""

    now: Cores
    coming: Cores | None = None
    want: Cores
    max: Cores | None = None
    reach: Cores | None = None


class QueueState(msgspec.Struct, frozen=True):
    """late: requests that wait with their deadline behind them. slack_s: of the most urgent request; None without one."""

    requests: Count = 0
    rows: Count = 0
    late: Count = 0
    slack_s: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)] | None = None


class BatchState(msgspec.Struct, frozen=True):
    """A batch with the model server, for so many seconds."""

    rows: Count
    requests: Count
    for_s: Amount


class ProxyState(msgspec.Struct, frozen=True, kw_only=True):
    """settings: every set value by annotation name. rate: arriving rows per second. model: the latency model, as
    `core.latency.profile.to_json` writes it; it is not looked into here."""

    version: str = ""
    settings: dict[str, str] = {}
    cores: CoresState
    queue: QueueState = QueueState()
    running: tuple[BatchState, ...] = ()
    rate: Amount = 0.0
    model: dict[str, Any]


def encode_state(state: ProxyState) -> bytes:
    """JSON."""
    return msgspec.json.encode(state)


decode_state: Final = decoder(ProxyState, "a state")
"""Raises WireError."""
