"""What the leader shows of every revision, pod and node, as values and as JSON of version 1; nothing is decided here.

Standard library only: the command line reads it too. Nothing of any request and no secret belongs in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from knative_sponge.errors import SpongeError

VERSION: Final = 1


class BoardError(SpongeError):
    """What the leader answered is not an overview of this version."""


@dataclass(frozen=True, slots=True)
class PodRow:
    """One pod.

    cores: in force. target: what the node's division gave it. want: what it asked for. phase: state of its resize.
    pending: the node's words on why a resize waits, else empty. rate: rows per second. queued: rows that wait. running:
    batches with the model server. slack_s: what 95 % of requests have left at least when they arrive; None before any.
    met, missed: requests since the pod started. news_s: age of its last demand; None is never heard from.
    curve: (cores, rows per second expected to miss), cores ascending. params: gamma, delta, epsilon, eta of
    `core.latency.curve.LatencyParams`; None before the first demand. cost: the same of what batches cost
    (`core/latency/credit.py`). samples: calls they were learned from.

    Raises ValueError for numbers that are not finite or below zero.
    """

    name: str
    node: str
    cores: float
    target: float
    want: float
    phase: str
    pending: str = ""
    rate: float = 0.0
    queued: int = 0
    running: int = 0
    slack_s: float | None = None
    met: int = 0
    missed: int = 0
    news_s: float | None = None
    curve: tuple[tuple[float, float], ...] = ()
    params: tuple[float, float, float, float] | None = None
    cost: tuple[float, float, float, float] | None = None
    samples: int = 0

    def __post_init__(self) -> None:
        _check("a pod", self.cores, self.target, self.want, self.rate, self.queued, self.running, self.met, self.missed)

    def misses(self, cores: float) -> float | None:
        """Rows per second expected to miss at this size, on straight lines between the points; None without a curve."""
        if not self.curve:
            return None
        after = bisect_right(self.curve, (cores, math.inf))
        if after == 0:
            return self.curve[0][1]
        if after == len(self.curve):
            return self.curve[-1][1]
        (low, more), (high, less) = self.curve[after - 1 : after + 1]
        return more + (less - more) * (cores - low) / (high - low)


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """One revision. slo_s: None is a revision without deadline. max_cores: None is what the node can give.

    wanted_pods: how many there shall be. why: one sentence on its sizes (`controller/reporting/why.py`).
    """

    namespace: str
    name: str
    service: str
    slo_s: float | None
    priority: int
    scaling: str
    max_batch: int
    max_inflight: int
    min_cores: float
    max_cores: float | None
    wanted_pods: int
    why: str = ""
    pods: tuple[PodRow, ...] = ()

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.max_inflight < 1:
            raise ValueError(f"max_batch and max_inflight must be at least 1: {self.max_batch}, {self.max_inflight}")
        _check("a revision", self.min_cores, self.wanted_pods)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node with pods of ours, in cores.

    allocatable: what Kubernetes gives out. reserved: what others' containers request. divided: what our pods were given.
    wanted: what they asked for. short: not all of that could be given.
    """

    name: str
    allocatable: float
    reserved: float
    divided: float
    wanted: float
    short: bool

    def __post_init__(self) -> None:
        _check("a node", self.allocatable, self.reserved, self.divided, self.wanted)

    @property
    def capacity(self) -> float:
        """Cores there are to divide."""
        return max(0.0, self.allocatable - self.reserved)


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment. age_s: how long ago the leader's loop published it."""

    age_s: float
    revisions: tuple[RevisionRow, ...]
    nodes: tuple[NodeRow, ...]

    def node(self, name: str) -> NodeRow | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def to_json(self) -> bytes:
        """The document `{"v": 1, "age_s": …, "revisions": […], "nodes": […]}`, fields named as the attributes."""
        document = {"v": VERSION} | dataclasses.asdict(self)
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Overview:
        """Fields that are not known are passed over. Raises BoardError for another version or a missing field."""
        if document.get("v") != VERSION:
            raise BoardError(f"the leader speaks version {document.get('v')!r}, this program version {VERSION}")
        try:
            return cls(
                float(document["age_s"]),
                tuple(_revision(row) for row in document["revisions"]),
                tuple(NodeRow(**_known(NodeRow, row)) for row in document["nodes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BoardError(f"the leader's overview cannot be read: {error!r}") from error


def _revision(row: Mapping[str, Any]) -> RevisionRow:
    pods = []
    for pod in row["pods"]:
        found = _known(PodRow, pod)
        found["curve"] = tuple((float(cores), float(misses)) for cores, misses in found["curve"])
        for name in ("params", "cost"):
            found[name] = None if found.get(name) is None else tuple(map(float, found[name]))
        pods.append(PodRow(**found))
    return RevisionRow(**{**_known(RevisionRow, row), "pods": tuple(pods)})


def _known(kind: type[PodRow | RevisionRow | NodeRow], row: Mapping[str, Any]) -> dict[str, Any]:
    """A field with a default may be missing: an older leader does not know it."""
    return {
        field.name: row[field.name]
        for field in dataclasses.fields(kind)
        if field.name in row or field.default is dataclasses.MISSING
    }


def _check(what: str, *numbers: float) -> None:
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError(f"{what} with numbers that are not finite or below zero: {numbers}")
