"""AdmissionReview v1, decoded and encoded, and the JSON patch between objects; knows nothing of pods, Services or sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import msgspec

from knative_sponge.errors import SpongeError

_VERSION: Final = "admission.k8s.io/v1"
_KIND: Final = "AdmissionReview"

Object = Mapping[str, Any]
"""A Kubernetes object, decoded from JSON, that nothing modifies: a changed object is a copy that shares the unchanged parts."""


class BadReview(SpongeError):
    """The body is not an AdmissionReview v1 that can be answered. The text says why, and shows nothing of the object."""


@dataclass(frozen=True, slots=True)
class Review:
    """One request of the API server.

    operation: CREATE, UPDATE, DELETE or CONNECT. new: the object as it would be stored; None on DELETE. old: the stored
    object; None on CREATE.
    """

    uid: str
    operation: str
    namespace: str
    name: str
    new: Object | None
    old: Object | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a review.

    outcome: one word for metrics and logs. changed: the object to store instead; None leaves it as it is. message: why the
    object is refused, for a person; None allows it. warnings: shown to the client's user; the API server cuts each at 256
    characters.
    """

    outcome: str
    changed: Object | None = None
    message: str | None = None
    warnings: tuple[str, ...] = ()


MOST_VALUES: Final = 500_000
"""Brackets and commas in a body, those in texts included: an object of 1.5 MiB, twice, has less. A value of a few bytes takes
dozens in memory."""


def read_review(body: bytes) -> Review:
    """The review in a request body. Raises BadReview."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES:
        raise BadReview(f"the body has more than {MOST_VALUES} values")
    try:
        review = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise BadReview("the body is not JSON") from error
    if not isinstance(review, dict) or review.get("apiVersion") != _VERSION or review.get("kind") != _KIND:
        raise BadReview(f"the body is not an {_KIND} of {_VERSION}")
    request = review.get("request")
    if not isinstance(request, dict):
        raise BadReview(f"the {_KIND} has no request")
    uid, operation = request.get("uid"), request.get("operation")
    if not isinstance(uid, str) or not uid:
        raise BadReview("the request has no uid")
    if not isinstance(operation, str):
        raise BadReview("the request has no operation")
    for field in ("object", "oldObject"):
        if not isinstance(request.get(field), dict | None):
            raise BadReview(f"the request's {field} is not an object")
    return Review(
        uid=uid,
        operation=operation,
        namespace=str(request.get("namespace") or ""),
        name=str(request.get("name") or ""),
        new=request.get("object"),
        old=request.get("oldObject"),
    )


def write_review(review: Review, verdict: Verdict) -> bytes:
    """The body of the answer. It has a patch only where the object changes and is not refused."""
    response: dict[str, Any] = {"uid": review.uid, "allowed": verdict.message is None}
    if verdict.message is not None:
        response["status"] = {"message": verdict.message, "code": 403, "reason": "Forbidden"}
    elif verdict.changed is not None and (patch := json_patch(review.new, verdict.changed)):
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
    if verdict.warnings:
        response["warnings"] = list(verdict.warnings)
    return json.dumps({"apiVersion": _VERSION, "kind": _KIND, "response": response}).encode()


def member(value: Object, key: str) -> Object:
    """A member that is an object. It is empty where the member is absent, null or no object.

    Knative Services arrive as their author wrote them: our webhook is asked before anybody has checked their shape.
    """
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def members(value: Object, key: str) -> Sequence[Object]:
    """The objects in a member that is an array; empty where the member is absent, null or no array."""
    found = value.get(key)
    return [one for one in found if isinstance(one, Mapping)] if _is_array(found) else []


def json_patch(before: Any, after: Any) -> list[dict[str, Any]]:
    """RFC 6902 operations that turn one JSON value into the other; empty when they are equal.

    Each operation changes the smallest subtree that differs, below a parent that exists. Items of an array are compared by
    position: appending is one `add` per item.
    """
    return list(_operations("", before, after))


def _operations(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before:
            if key not in after:
                yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
        for key, value in after.items():
            if key not in before:
                yield {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}
            else:
                yield from _operations(f"{path}/{_escaped(key)}", before[key], value)
    elif _is_array(before) and _is_array(after):
        common = min(len(before), len(after))
        for index in range(common):
            yield from _operations(f"{path}/{index}", before[index], after[index])
        # From the end: a removal moves only items that are removed already.
        for index in range(len(before) - 1, common - 1, -1):
            yield {"op": "remove", "path": f"{path}/{index}"}
        for value in after[common:]:
            yield {"op": "add", "path": f"{path}/-", "value": value}
    # `True == 1` in Python, not in JSON.
    elif type(before) is not type(after) or before != after:
        yield {"op": "replace", "path": path, "value": after}


def _is_array(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
