"""A latency model as JSON and back, so that a new pod starts with what an old one learned. Dicts in, dicts out; no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, Unpack

from knative_sponge.core.latency.curve import LEAST_CORE_BUCKET, MOST_CORE_BUCKET, LatencyParams, Region
from knative_sponge.core.latency.evidence import EVIDENCE_SIZE, Evidence
from knative_sponge.core.latency.learning import RegionMemory
from knative_sponge.core.latency.model import LatencyModel, ModelOptions
from knative_sponge.core.latency.spread import Scatter
from knative_sponge.errors import ProfileError, shown

VERSION: Final = 1

_PARAMETERS: Final = ("gamma", "delta", "epsilon", "eta")
_MOST_ROW_BUCKET: Final = 32
_MOST_WHOLE: Final = 2**53
"""What a float holds exactly."""
_LARGEST: Final = 1e30
"""Evidence of real calls stays far below. Products of larger numbers would overflow."""


_Made = TypeVar("_Made")


def to_json(model: LatencyModel) -> dict[str, Any]:
    """Everything the model learned, as values that `json.dumps` takes. ModelOptions are not learned and stay out.

    `params` is the present curve in seconds and core-seconds, for other readers; all other fields restore the model. `cost`
    is the cost curve, where it differs from the latency curve. `rows` and `cores` of a region are its buckets: up to 2^rows
    rows, from 2^cores cores. `evidence` is that of `core/latency/evidence.py`.
    """
    learner, spread = model.learner, model.spread
    return {
        "version": VERSION,
        "params": _parameters(learner.params),
        **({} if model.costs is learner else {"cost": _parameters(model.costs.params)}),
        "prior": _parameters(learner.anchor),
        "level": learner.level,
        "samples": learner.samples,
        "recent": list(learner.recent),
        "regions": [
            {
                "rows": rows,
                "cores": cores,
                "visits": memory.visits,
                "evidence": list(memory.evidence),
            }
            for (rows, cores), memory in learner.regions.items()
        ],
        "spread": {
            **_scatter(spread.overall),
            "regions": [
                {"rows": rows, "cores": cores, **_scatter(seen)} for (rows, cores), seen in spread.regions.items()
            ],
        },
    }


def from_json(document: Mapping[str, Any], **options: Unpack[ModelOptions]) -> LatencyModel:
    """The model that `to_json` described. It predicts the same and learns on.

    `version` and `prior` are enough, or `version` and `params`, as in a profile written by hand; the first sample then sets
    the level of the curve. Raises ProfileError that names the first field with an impossible value.
    """
    root = _Field("", document)
    version = root.at("version").whole(0)
    if version != VERSION:
        raise ProfileError(f"version: {shown(version)} is not known; this program reads version {VERSION}")
    model = root.at("prior" if "prior" in document else "params").curve(lambda params: LatencyModel(params, **options))
    if "cost" in document:
        root.at("cost").curve(model.restore_costs)
    if "samples" in document:
        spread = root.at("spread")
        model.learner.restore(
            samples=root.at("samples").whole(0),
            level=root.at("level").number(1.0 / _LARGEST),
            recent=_read_evidence(root.at("recent")),
            regions={_read_region(item): _read_memory(item) for item in root.at("regions").items()},
        )
        model.spread.restore(
            _read_scatter(spread), {_read_region(item): _read_scatter(item) for item in spread.at("regions").items()}
        )
    return model


def _read_region(item: _Field) -> Region:
    return item.at("rows").whole(0, _MOST_ROW_BUCKET), item.at("cores").whole(LEAST_CORE_BUCKET, MOST_CORE_BUCKET)


def _read_memory(item: _Field) -> RegionMemory:
    return RegionMemory(item.at("visits").whole(0), _read_evidence(item.at("evidence")))


def _read_scatter(item: _Field) -> Scatter:
    return Scatter(item.at("count").whole(0), item.at("square").number())


def _read_evidence(item: _Field) -> Evidence:
    if isinstance(item.value, list) and len(item.value) != EVIDENCE_SIZE:
        raise item.wrong(f"{EVIDENCE_SIZE} numbers")
    return [entry.number() for entry in item.items()]


def _parameters(params: LatencyParams) -> dict[str, float]:
    return {name: getattr(params, name) for name in _PARAMETERS}


def _scatter(scatter: Scatter) -> dict[str, float]:
    return {"count": scatter.count, "square": scatter.square}


class _Field:
    """A value of the document and its path, which error messages name."""

    __slots__ = ("path", "value")

    def __init__(self, path: str, value: Any) -> None:
        self.path = path
        self.value = value

    def at(self, name: str) -> _Field:
        path = f"{self.path}.{name}" if self.path else name
        if not isinstance(self.value, Mapping):
            raise self.wrong("an object")
        if name not in self.value:
            raise ProfileError(f"{path}: missing")
        return _Field(path, self.value[name])

    def items(self) -> Iterator[_Field]:
        """One by one: a list may be as long as a pod likes."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        for i, value in enumerate(self.value):
            yield _Field(f"{self.path}[{i}]", value)

    def number(self, least: float = 0.0) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= _LARGEST:
            raise self.wrong(f"a number from {least:g} to {_LARGEST:g}")
        return float(value)

    def curve(self, use: Callable[[LatencyParams], _Made]) -> _Made:
        values = [self.at(name).number() for name in _PARAMETERS]
        try:
            return use(LatencyParams(*values))
        except ValueError as error:
            raise ProfileError(f"{self.path}: {error}") from error

    def whole(self, least: int, most: int = _MOST_WHOLE) -> int:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(f"a whole number from {least} to {most}")
        return value

    def wrong(self, expected: str) -> ProfileError:
        return ProfileError(f"{self.path or 'profile'}: expected {expected}, not {shown(self.value, 60)}")
