"""The overview's rows of revisions, pods and nodes, as values and as JSON of version 1; nothing is decided here.

Standard library only, because the command line uses it too. No row has anything of a request, or a secret.
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

PATH: Final = "/sponge/v1/revisions"
"""Where the overview is served, on the metrics port."""
VERSION: Final = 1


class BoardError(SpongeError):
    """The leader's answer is no overview of this version."""


@dataclass(frozen=True, slots=True)
class PodRow:
    """One pod.

    cores: in force. target: its share of the node's division. want: cores that it asked for. phase: state of its resize.
    pending: the kubelet's message on why a resize waits, else empty. rate: rows per second. queued: rows that wait. running:
    batches at the model server. slack_s: 95 % of requests have at least so much time left when they arrive; None before any.
    met, missed: requests since the pod started. news_s: age of its last demand; None before the first. curve: (cores, rows per
    second expected to miss), cores ascending. params: gamma, delta, epsilon, eta of `core.latency.curve.LatencyParams`; None
    before the first demand. cost: the same for the cost of batches (`core/latency/quota_credit.py`). samples: calls that both
    were learned from.

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
        """Rows per second expected to miss at this size, interpolated between the curve's points; None without a curve."""
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
    """One revision. slo_s: None for a revision without deadlines. max_cores: None is bounded by the node alone.

    wanted_pods: pods that it shall have. why: one sentence on its sizes (`controller/reporting/why.py`).
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
    """One node with managed pods, in cores.

    allocatable: of the node. reserved: not for its managed pods (`cluster/capacity.py`). divided: given to its managed pods.
    wanted: asked for by them. short: is more wanted than the node has for them?
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
        """Cores for the managed pods."""
        return max(0.0, self.allocatable - self.reserved)


@dataclass(frozen=True, slots=True)
class Overview:
    """All revisions and nodes at one moment. age_s: seconds since the leader published it."""

    age_s: float
    revisions: tuple[RevisionRow, ...]
    nodes: tuple[NodeRow, ...]

    def node(self, name: str) -> NodeRow | None:
        """The node of that name; None where there is none."""
        return next((node for node in self.nodes if node.name == name), None)

    def to_json(self) -> bytes:
        """The document `{"v": 1, "age_s": …, "revisions": […], "nodes": […]}`, fields named as the attributes."""
        document = {"v": VERSION} | dataclasses.asdict(self)
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Overview:
        """From the decoded document. Unknown fields are ignored. Raises BoardError for another version or a missing field."""
        if document.get("v") != VERSION:
            raise BoardError(f"the leader speaks version {document.get('v')!r}, this program version {VERSION}")
        try:
            return cls(
                float(document["age_s"]),
                tuple(_revision(row) for row in document["revisions"]),
                tuple(NodeRow(**_known_fields(NodeRow, row)) for row in document["nodes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BoardError(f"the leader's overview cannot be read: {error!r}") from error


def _revision(row: Mapping[str, Any]) -> RevisionRow:
    pods = []
    for pod in row["pods"]:
        found = _known_fields(PodRow, pod)
        found["curve"] = tuple((float(cores), float(misses)) for cores, misses in found["curve"])
        for name in ("params", "cost"):
            found[name] = None if found.get(name) is None else tuple(map(float, found[name]))
        pods.append(PodRow(**found))
    return RevisionRow(**{**_known_fields(RevisionRow, row), "pods": tuple(pods)})


def _known_fields(kind: type[PodRow | RevisionRow | NodeRow], row: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of a row. One with a default may be missing: an older leader does not send it."""
    return {
        field.name: row[field.name]
        for field in dataclasses.fields(kind)
        if field.name in row or field.default is dataclasses.MISSING
    }


def _check(what: str, *numbers: float) -> None:
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError(f"{what} with numbers that are not finite or below zero: {numbers}")
