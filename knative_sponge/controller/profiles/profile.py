"""An image's profile, which outlives its pods: learned latency and size, as a short text. Pure: no I/O, no clock.

A text that cannot be read raises ProfileError. Nothing in it is guessed, because new pods start with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.profile import from_json, to_json
from knative_sponge.errors import ProfileError

LONGEST: Final = 8 * 1024
"""Bytes of one text: some 35 regions of (batch, cores), more than a model server visits."""
_DIGITS: Final = 6
"""Digits of a model's numbers: rounding changes predictions by less than 0.1 %, and measurements scatter by 2 % at least."""

_DIGEST: Final = re.compile(r"@sha256:([0-9a-f]{64})$")
_UNFIT: Final = re.compile(r"[^-._a-zA-Z0-9]")
_GRID: Final = tuple((rows, cores) for rows in (1, 8, 32) for cores in (0.25, 1.0, 4.0, 16.0))
_CURVE_SHARE: Final = 0.05
_CORES_SHARE: Final = 0.1
_PLENTY: Final = 200
"""A profile of so many measurements is not stored again for more measurements alone."""
_REFRESH_S: Final = 3600.0
"""A profile in use is written again after so long, so that it does not count as the least recently seen."""


@dataclass(frozen=True, slots=True)
class ImageProfile:
    """What the pods of one image have learned.

    model: their latency model, JSON of `core.latency.profile` with few digits. cores: a size to start with; None is not known.
    seen_s: when it was learned, Unix seconds in whole minutes. params, cost: the model's curves of latency and of cost.
    samples: measurements that the model rests on.
    """

    model: str
    cores: float | None
    seen_s: float
    params: LatencyParams
    cost: LatencyParams
    samples: int


def key_of(image: str, namespace: str, service: str, owner: str) -> str:
    """The key of an image in a Service: `sha256-<64 hex digits>.<namespace>.<service>.<16 hex digits>`, of its digest or else
    its reference, and of the owner's uid.

    The Service is part of the key, because one image serves different models in different Services. The uid of its
    Configuration is, because names are guessed: anybody can ask the webhook about a pod that does not exist. The key is valid
    in a ConfigMap.
    """
    found = _DIGEST.search(image)
    digest = found[1] if found else hashlib.sha256(image.encode(errors="replace")).hexdigest()
    whose = hashlib.sha256(owner.encode(errors="replace")).hexdigest()[:16]
    return f"sha256-{digest}.{_UNFIT.sub('_', f'{namespace}.{service}'[:150])}.{whose}"


def namespace_of(key: str) -> str:
    """The namespace in a key; empty for what is no key. Neither namespaces nor names of Services have dots."""
    _, _, rest = key.partition(".")
    return rest.partition(".")[0]


def image_profile(model: Mapping[str, Any], cores: float | None, now: float) -> ImageProfile:
    """From a model as `core.latency.profile.to_json` makes it. Its least visited regions are left out where it is too long.

    now: Unix seconds. Raises ProfileError.
    """
    learned = from_json(model)
    text = _within(to_json(learned), LONGEST - 100)  # cores, time and braces around it
    size = None if cores is None else _checked(cores)
    return ImageProfile(text, size, now // 60 * 60, learned.params, learned.costs.params, learned.learner.samples)


def to_text(value: ImageProfile) -> str:
    """One line that `from_text` reads back; at most LONGEST bytes."""
    seen = datetime.fromtimestamp(value.seen_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'{{"model":{value.model},"cores":{json.dumps(value.cores)},"seen":"{seen}"}}'


def from_text(text: str) -> ImageProfile:
    """Raises ProfileError when it is not what `to_text` writes."""
    if len(text) > LONGEST:
        raise ProfileError(f"more than {LONGEST} characters")
    try:
        found = json.loads(text)
        cores, seen_s = found["cores"], datetime.fromisoformat(found["seen"]).timestamp()
        return image_profile(found["model"], cores, seen_s)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ProfileError(f"not a profile with cores and time: {error}") from error


def worth_storing(old: ImageProfile | None, new: ImageProfile) -> bool:
    """Is the new profile worth writing over the old one? It has another size or speed, or many more measurements, or the old
    one was written an hour before it."""
    if old is None:
        return True
    if new.cores is not None and (old.cores is None or abs(new.cores - old.cores) > _CORES_SHARE * old.cores):
        return True
    for rows, cores in _GRID:
        for curve, changed in ((old.params, new.params), (old.cost, new.cost)):
            before, after = curve.latency_s(rows, cores), changed.latency_s(rows, cores)
            if abs(after - before) > _CURVE_SHARE * before:
                return True
    surer = old.samples < _PLENTY and new.samples >= 2 * old.samples
    return surer or new.seen_s - old.seen_s >= _REFRESH_S


def _within(model: dict[str, Any], most: int) -> str:
    """The model's text with as many regions, the most visited first, as fit into `most` bytes."""
    model = _rounded(model)
    memories = {(one["rows"], one["cores"]): one for one in model["regions"]}
    scatters = {(one["rows"], one["cores"]): one for one in model["spread"]["regions"]}
    kept: list[dict[str, Any]] = []
    kept_scatters: list[dict[str, Any]] = []
    bare = {**model, "regions": kept, "spread": {**model["spread"], "regions": kept_scatters}}
    left = most - len(_text(bare))

    def visits(region: tuple[int, int]) -> tuple[int, int]:
        return memories.get(region, {}).get("visits", 0), scatters.get(region, {}).get("count", 0)

    for region in sorted(memories.keys() | scatters.keys(), key=lambda each: (visits(each), each), reverse=True):
        parts = [one[region] for one in (memories, scatters) if region in one]
        left -= sum(len(_text(part)) + 1 for part in parts)
        if left < 0:
            break
        if region in memories:
            kept.append(memories[region])
        if region in scatters:
            kept_scatters.append(scatters[region])
    return _text(bare)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _checked(cores: object) -> float:
    if isinstance(cores, bool) or not isinstance(cores, int | float) or not 0.001 <= cores <= 4096:
        raise ProfileError(f"cores: expected a number from 0.001 to 4096, not {str(cores)[:60]}")
    return round(float(cores), 3)
