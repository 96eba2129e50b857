"""When a request must be answered, and which deadline cores are bought for: the first of its claims that is present and valid,
as far as the revision lets clients say (docs/design.md §3.2). No I/O.

Wall-clock time appears only as a difference. A claim in unix time becomes the time left at arrival, and that becomes a
deadline on the monotonic clock, which every other part uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_to_bytes


class Source(StrEnum):
    """Which claim a deadline was taken from."""

    DEADLINE_HEADER = "x-sponge-deadline"
    EXPIRYTIME = "ce-expirytime"
    SLO_HEADER = "x-sponge-slo-ms"
    TTFT_HEADER = "x-slo-ttft-ms"
    ENVOY_HEADER = "x-envoy-expected-rq-timeout-ms"
    GRPC_HEADER = "grpc-timeout"
    SETTING = "slo"


class ClientBudget(StrEnum):
    """How far a client's own budget counts. (A send time is no budget: it counts whatever this says.)

    SHORTER: it may shorten what is answered, not what is bought. More time than the SLO is not given.
    ANY: it counts in place of the SLO, longer or shorter, for answers and sizes.
    IGNORE: the SLO counts for all.
    """

    SHORTER = "shorter"
    ANY = "any"
    IGNORE = "ignore"


class Skew(StrEnum):
    """What was wrong with the send time."""

    FUTURE = "future"
    STALE = "stale"


CLAIM_HEADERS: Final = frozenset(
    {
        b"x-sponge-deadline", b"ce-expirytime", b"x-sponge-slo-ms", b"x-slo-ttft-ms", b"x-envoy-expected-rq-timeout-ms",
        b"grpc-timeout", b"x-sponge-sent", b"x-request-start", b"ce-time",
    }
)  # fmt: skip
"""Every header that this module reads, lower-case."""

_Readers = Sequence[tuple[bytes, Callable[[str], float]]]
"""Headers in the order in which they count, and how each is read: seconds, or ValueError or OverflowError."""

_GRPC: Final = re.compile(r"(\d{1,8})([HMSmun])")
_GRPC_UNIT_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NUMBER: Final = re.compile(r"\d{1,19}(\.\d{0,9})?")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,30})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MOST_CHARACTERS: Final = 64
"""Of a claim: a timestamp with 30 decimal places has 56."""
_LATEST_WALL_S: Final = 253402300799.0  # the end of year 9999


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request must be answered.

    at_s: absolute, monotonic seconds. The request is ordered, dropped and answered by it.
    sizing_at_s: the deadline that cores are bought for, on the same clock.
    own_at_s: until when the client itself has a use for an answer, as far as is known; on the same clock. It may be later than
        at_s, which ends with the revision's SLO or timeout.
    budget_s: the whole time allowed, from the client's send.
    network_s: the part of the budget that counts as used before arrival.
    source: the claim that the deadline was taken from.
    skew: what was wrong with the send time; None when nothing was.
    ignored: headers that were present with an unusable value.
    clipped: the client asked for more time than it may.
    """

    at_s: float
    sizing_at_s: float
    own_at_s: float
    budget_s: float
    network_s: float
    source: Source
    skew: Skew | None = None
    ignored: tuple[str, ...] = ()
    clipped: bool = False


@dataclass(frozen=True, slots=True)
class _Allowance:
    """The time that one claim allows. left_s: from the arrival on. The rest as in `Deadline`."""

    left_s: float
    budget_s: float
    network_s: float
    source: Source
    skew: Skew | None


def claims_of(
    headers: Iterable[tuple[bytes, bytes]], attributes: Mapping[str, str] | None = None
) -> dict[bytes, bytes]:
    """The claims among the headers; of duplicates the first. Names must be lower-case.

    attributes: those of the CloudEvent, for a request that is one; None for any other request. They count in place of the
    `ce-` headers, which a structured event does not have. Without them `ce-` headers are percent-decoded, as the CloudEvents
    HTTP binding encodes them.
    """
    claims: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in CLAIM_HEADERS and name not in claims:
            claims[name] = unquote_to_bytes(value) if b"%" in value and name.startswith(b"ce-") else value
    if attributes is not None:
        for name, attribute in ((b"ce-expirytime", "expirytime"), (b"ce-time", "time")):
            claims.pop(name, None)
            if attribute in attributes:
                claims[name] = attributes[attribute].encode()
    return claims


def deadline_of(
    claims: Mapping[bytes, bytes],
    *,
    now: float,
    wall_now_s: float,
    slo_s: float,
    timeout_s: float,
    max_network_share: float,
    client_budget: ClientBudget,
) -> Deadline:
    """The deadline of a request that arrived at `now` (monotonic seconds), which is `wall_now_s` in unix seconds.

    claims: see `claims_of`. slo_s: the revision's SLO, used when no claim is valid. timeout_s: the revision timeout; no
    deadline is later. max_network_share: the time since the send uses up at most this share of the budget, as the client's
    clock may be wrong. client_budget: how far a claim counts.
    """
    if not claims:
        at_s = now + min(slo_s, timeout_s)
        return Deadline(at_s, at_s, now + slo_s, slo_s, 0.0, Source.SETTING)
    ignored: list[str] = []
    passed_s = _passed(claims, wall_now_s, ignored)
    revision = _counted_from_send(slo_s, Source.SETTING, passed_s, max_network_share)
    own = None
    if client_budget is not ClientBudget.IGNORE:
        own = _absolute(claims, wall_now_s, ignored) or _relative(claims, passed_s, max_network_share, ignored)
    answered = own or revision
    sized = answered if client_budget is ClientBudget.ANY else revision
    own_s, clipped = answered.left_s, answered.left_s > sized.left_s
    if clipped:
        answered = sized
    return Deadline(
        now + min(answered.left_s, timeout_s),
        now + min(sized.left_s, timeout_s),
        now + own_s,
        answered.budget_s,
        answered.network_s,
        answered.source,
        answered.skew,
        tuple(ignored),
        clipped,
    )


def rfc3339_s(text: str) -> float:
    """Unix seconds of a timestamp as RFC 3339 §5.6 spells it. Raises ValueError or OverflowError for any other text."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(text[:_MOST_CHARACTERS])
    return datetime.fromisoformat(text.upper()).astimezone(UTC).timestamp()


def _absolute(claims: Mapping[bytes, bytes], wall_now_s: float, ignored: list[str]) -> _Allowance | None:
    """What an absolute deadline allows; it says nothing of when the request was sent."""
    found = _first(claims, _ABSOLUTE, ignored)
    if found is None:
        return None
    name, wall_s = found
    left_s = wall_s - wall_now_s
    return _Allowance(left_s, left_s, 0.0, Source(name), None)


def _relative(
    claims: Mapping[bytes, bytes], passed_s: float | None, max_network_share: float, ignored: list[str]
) -> _Allowance | None:
    """What a budget allows that counts from the send."""
    found = _first(claims, _RELATIVE, ignored)
    if found is None:
        return None
    name, budget_s = found
    return _counted_from_send(budget_s, Source(name), passed_s, max_network_share)


def _counted_from_send(budget_s: float, source: Source, passed_s: float | None, max_network_share: float) -> _Allowance:
    """A budget less the time since the send, which is clamped to a share of the budget. It never falls with the budget."""
    most_s = budget_s * max_network_share
    network_s, skew = 0.0, None
    if passed_s is not None:
        network_s = min(max(passed_s, 0.0), most_s)
        skew = Skew.FUTURE if passed_s < 0 else Skew.STALE if passed_s > most_s else None
    return _Allowance(budget_s - network_s, budget_s, network_s, source, skew)


def _passed(claims: Mapping[bytes, bytes], wall_now_s: float, ignored: list[str]) -> float | None:
    """Seconds since the send, as the request tells them: negative where clocks differ, None where it says nothing."""
    found = _first(claims, _SENT, ignored)
    return None if found is None else wall_now_s - found[1]


def _first(claims: Mapping[bytes, bytes], readers: _Readers, ignored: list[str]) -> tuple[str, float] | None:
    """Name and value of the first claim that is there and valid; those before it that are not valid are ignored."""
    for name, parse in readers:
        value = claims.get(name)
        if value is not None:
            try:
                if len(value) > _MOST_CHARACTERS:
                    raise ValueError(name)
                return name.decode(), parse(value.decode("ascii").strip())
            except (ValueError, OverflowError):
                ignored.append(name.decode())
    return None


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _unix_ms(text: str) -> float:
    seconds = _number(text) / 1000
    if seconds > _LATEST_WALL_S:
        raise ValueError(text)
    return seconds


def _milliseconds(text: str) -> float:
    milliseconds = _number(text)
    if milliseconds <= 0:
        raise ValueError(text)
    return milliseconds / 1000


def _grpc_timeout(text: str) -> float:
    match = _GRPC.fullmatch(text)
    if match is None or int(match.group(1)) == 0:
        raise ValueError(text)
    return int(match.group(1)) * _GRPC_UNIT_S[match.group(2)]


def _request_start(text: str) -> float:
    """`t=<unix time>` in seconds, milliseconds, microseconds or nanoseconds. The magnitude tells which."""
    value = _number(text.removeprefix("t="))
    for unit_s in (1.0, 1e-3, 1e-6, 1e-9):
        if 1e9 <= value * unit_s < 1e10:
            return value * unit_s
    raise ValueError(text)


_ABSOLUTE: Final[_Readers] = (
    (Source.DEADLINE_HEADER.encode(), _unix_ms),
    (Source.EXPIRYTIME.encode(), rfc3339_s),
)
_RELATIVE: Final[_Readers] = (
    (Source.SLO_HEADER.encode(), _milliseconds),
    (Source.TTFT_HEADER.encode(), _milliseconds),
    (Source.ENVOY_HEADER.encode(), _milliseconds),
    (Source.GRPC_HEADER.encode(), _grpc_timeout),
)
_SENT: Final[_Readers] = ((b"x-sponge-sent", _unix_ms), (b"x-request-start", _request_start), (b"ce-time", rfc3339_s))
