"""Every setting of the serving side in one place: name, unit, default, why. Parsed once, passed down, never re-read.

A user writes annotations `knative-sponge.dev/<name>`; the webhook (or `sponge run`) hands them to the proxy as
`SPONGE_<NAME>` environment variables. Both spell the same values, so both go through `ServingSettings.parse`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, TypeVar

from knative_sponge.core.batching.deadline import ClientBudget
from knative_sponge.core.quantity import format_bytes, format_cores, format_duration, parse_duration_s, parse_quantity
from knative_sponge.errors import SettingError

ANNOTATION_PREFIX = "knative-sponge.dev/"
ENV_PREFIX = "SPONGE_"

EFFECTIVE: Final = ANNOTATION_PREFIX + "effective"
PROXY: Final = ANNOTATION_PREFIX + "proxy"
INTERNAL: Final = frozenset({EFFECTIVE, PROXY})
"""What the webhook itself writes on pods: all effective settings as JSON, and which proxy the pod runs. Not settings."""

MOST_EFFECTIVE: Final = 8192
"""Characters of `effective` that are read. The webhook writes some 1,000, but whoever makes a bare pod writes what he likes."""
MOST_TEXT: Final = 256
"""Characters of one value. Whatever is longer is refused before it is parsed: tenants write it, others wait for its parser."""


class ProtocolName(StrEnum):
    """How requests are merged (docs/design.md §3.1)."""

    AUTO = "auto"
    V2 = "v2"
    V1 = "v1"
    CLOUDEVENTS = "cloudevents"
    JSON_ARRAY = "json-array"
    NONE = "none"


class Late(StrEnum):
    """What happens to a request that cannot meet its deadline."""

    DROP = "drop"
    SERVE = "serve"


class Defer(StrEnum):
    """May a batch wait, inside its slack, to grow?"""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


class CpuLimit(StrEnum):
    """How the CPU limit follows the request when a pod is resized."""

    EQUAL = "equal"
    BURST = "burst"


class Scaling(StrEnum):
    """Which dimensions may change."""

    VERTICAL = "vertical"
    HYBRID = "hybrid"


_FIELD_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FRAMING: Final = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "inference-header-content-length", "keep-alive",
    "date", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields of one message on one connection: a merged call has its own."""

_E = TypeVar("_E", bound=StrEnum)


def _choice(kind: type[_E]) -> Callable[[str], _E]:
    def parse(text: str) -> _E:
        return kind(text.strip())

    parse.__doc__ = "one of " + ", ".join(kind)
    return parse


def _positive_duration(text: str) -> float:
    """a duration above zero, such as 500ms or 2s"""
    seconds = parse_duration_s(text)
    if seconds <= 0:
        raise ValueError
    return seconds


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text.strip())
        if not low <= number <= high:
            raise ValueError
        return number

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def _share(text: str) -> float:
    """a number above 0 and below 1, such as 0.999"""
    number = float(text)
    if not 0 < number < 1:
        raise ValueError
    return number


def _share_or_one(text: str) -> float:
    """a number from 0 to 1, such as 0.9"""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def _cores(text: str) -> float:
    """a CPU quantity from 10m to 4096, such as 250m or 2"""
    cores = parse_quantity(text)
    if not 0.01 <= cores <= 4096:
        raise ValueError
    return cores


def _memory(text: str) -> int:
    """a memory quantity up to 1Pi, such as 256Mi"""
    amount = parse_quantity(text)
    if not 1 <= amount <= 2**50:
        raise ValueError
    return int(amount)


def _body_bytes(text: str) -> int:
    """a number of bytes from 1Ki to 1Gi, such as 32Mi"""
    amount = parse_quantity(text)
    if not 2**10 <= amount <= 2**30:
        raise ValueError
    return int(amount)


def _path(text: str) -> str:
    """an absolute path, such as /cpu"""
    if not text.startswith("/") or not text.isascii() or any(c <= " " for c in text):
        raise ValueError
    return text


def _field_names(text: str) -> tuple[str, ...]:
    """names of header fields, separated by commas, such as x-forwarded-for,user-agent, but none that frame a message"""
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    if not all(map(_FIELD_NAME.fullmatch, names)) or not _FRAMING.isdisjoint(names):
        raise ValueError
    return names


def _setting(parse: Callable[[str], Any], default: Any, show: Callable[[Any], str] = str) -> Any:
    return field(default=default, metadata={"parse": parse, "show": show})


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What a user sets for one revision (docs/design.md §3.1). Field `max_batch` is annotation `…/max-batch`,
    env `SPONGE_MAX_BATCH`."""

    slo_s: float | None = _setting(_positive_duration, None, format_duration)
    """Seconds a request may take from client send to answer; None makes the proxy a plain queue-proxy."""
    protocol: ProtocolName = _setting(_choice(ProtocolName), ProtocolName.AUTO)
    """How requests are merged; `auto` decides by the path of each request."""
    max_batch: int = _setting(_whole(1, 4096), 32)
    """Rows (not requests) per upstream call; larger batches gain little on CPUs and cost slack."""
    max_inflight: int = _setting(_whole(1, 256), 1)
    """Upstream batch calls at once; 1 makes the latency model exact."""
    min_cores: float = _setting(_cores, 0.1, format_cores)
    """Least cores of one pod's user container."""
    max_cores: float | None = _setting(_cores, None, format_cores)
    """Most cores of one pod's user container; None is what the node can give."""
    cpu_limit: CpuLimit = _setting(_choice(CpuLimit), CpuLimit.EQUAL)
    """`equal` keeps the model of (batch, cores) exact; `burst` lets a surge use idle cores at once."""
    min_memory: int | None = _setting(_memory, None)
    """Bytes; None leaves memory alone."""
    max_memory: int | None = _setting(_memory, None)
    """Bytes; None leaves memory alone."""
    late: Late = _setting(_choice(Late), Late.DROP)
    """`drop` answers 504 as soon as a deadline cannot be met; `serve` serves such a request after all that can meet theirs."""
    defer: Defer = _setting(_choice(Defer), Defer.AUTO)
    """Whether a batch may wait inside its slack for companions."""
    objective: float = _setting(_share, 0.999)
    """Share of requests that must meet their deadline."""
    scaling: Scaling = _setting(_choice(Scaling), Scaling.VERTICAL)
    """`vertical` only resizes; `hybrid` also changes the pod count, slowly."""
    cpu_hook: str | None = _setting(_path, None)
    """Path on the model server that is told its new core count by POST; None tells nobody."""
    priority: int = _setting(_whole(0, 9), 5)
    """Used when cores run short; higher wins."""
    keep_apart: tuple[str, ...] | None = _setting(_field_names, None, ",".join)
    """Header fields that keep requests apart though a merged call would lose them, for servers that answer by them."""
    max_network_share: float = _setting(_share_or_one, 0.9)
    """The time since a request was sent uses up at most this share of its budget: a wrong clock must not expire everything."""
    max_body: int = _setting(_body_bytes, 32 * 2**20, format_bytes)
    """Bytes of one inference request, which is held in memory (413 above); what passes through the proxy is unlimited."""
    max_rows: int = _setting(_whole(1, 1048576), 131072)
    """Rows of one inference request (413 above)."""
    client_budget: ClientBudget = _setting(_choice(ClientBudget), ClientBudget.SHORTER)
    """How far a request's own budget counts: `shorter` for its answer alone, and within `slo`; `any` in place of `slo`;
    `ignore` not at all."""

    def __post_init__(self) -> None:
        if self.max_cores is not None and self.max_cores < self.min_cores:
            raise SettingError(
                "max-cores", format_cores(self.max_cores), f"at least min-cores ({format_cores(self.min_cores)})"
            )
        if self.min_memory is not None and self.max_memory is not None and self.max_memory < self.min_memory:
            raise SettingError("max-memory", self.max_memory, f"at least min-memory ({self.min_memory})")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServingSettings:
        """From `SPONGE_*` variables; an absent or empty one takes its default. Raises SettingError naming the variable."""
        return cls._parse(lambda name: (ENV_PREFIX + name.replace("-", "_").upper(), env))

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> ServingSettings:
        """From `knative-sponge.dev/*` annotations. Raises SettingError naming the annotation, unknown ones included.

        Those in INTERNAL are passed over.
        """
        known = {ANNOTATION_PREFIX + name for name in cls.names()} | INTERNAL
        for key in annotations:
            if key.startswith(ANNOTATION_PREFIX) and key not in known:
                raise SettingError(key, annotations[key], "one of " + ", ".join(sorted(cls.names())))
        return cls._parse(lambda name: (ANNOTATION_PREFIX + name, annotations))

    @classmethod
    def _parse(cls, where: Callable[[str], tuple[str, Mapping[str, str]]]) -> ServingSettings:
        values: dict[str, Any] = {}
        for item in fields(cls):
            key, source = where(_public_name(item.name))
            text = source.get(key, "")
            if not text:
                continue
            if len(text) > MOST_TEXT:
                raise SettingError(key, text, f"at most {MOST_TEXT} characters")
            parse = item.metadata["parse"]
            try:
                values[item.name] = parse(text)
            except ValueError as error:
                raise SettingError(key, text, parse.__doc__) from error
        return cls(**values)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All setting names as users spell them in annotations, in order."""
        return tuple(_public_name(item.name) for item in fields(cls))

    def to_env(self) -> dict[str, str]:
        """`SPONGE_*` variables that `from_env` reads back to an equal object; unset ones are left out."""
        return {ENV_PREFIX + name.replace("-", "_").upper(): value for name, value in self.effective().items()}

    def effective(self) -> dict[str, str]:
        """Every set value as a user would write it, by annotation name."""
        shown: dict[str, str] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                shown[_public_name(item.name)] = item.metadata["show"](value)
        return shown


def _public_name(attribute: str) -> str:
    return attribute.removesuffix("_s").replace("_", "-")
