"""What the API server does with a webhook: asks with real objects, applies the patch. Independent of the product's code."""

from __future__ import annotations

import base64
import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

OBJECTS = Path(__file__).parent / "objects"


@functools.cache
def _read(name: str) -> Any:
    return yaml.safe_load((OBJECTS / f"{name}.yaml").read_text())


def stored(name: str) -> dict[str, Any]:
    """An object as stock Knative made it."""
    found: dict[str, Any] = copy.deepcopy(_read(name))
    return found


def pod_with(annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A revision's pod, `slo: 500ms` unless other annotations are given."""
    pod = stored("pod")
    chosen = {"slo": "500ms"} if annotations is None else annotations
    pod["metadata"]["annotations"] |= {f"knative-sponge.dev/{name}": value for name, value in chosen.items()}
    return pod


def container(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The only container of that name."""
    (found,) = (one for one in pod["spec"]["containers"] if one["name"] == name)
    assert isinstance(found, dict)
    return found


def env_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """What our proxy is told beyond Knative's own variables, but for what the kubelet fills in."""
    env = container(pod, "queue-proxy")["env"]
    return {one["name"]: one["value"] for one in env if one["name"].startswith("SPONGE_") and "value" in one}


def question(
    new: object, *, old: object = None, operation: str = "CREATE", uid: str = "705ab4f5-6393-11e8-b7cc-42010a800002"
) -> bytes:
    """An AdmissionReview as the API server sends it."""
    return json.dumps(
        {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": uid,
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "name": "hello",
                "namespace": "default",
                "operation": operation,
                "userInfo": {"username": "admin"},
                "object": new,
                "oldObject": old,
                "dryRun": False,
                "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            },
        }
    ).encode()


def stored_after(new: Any, answer: bytes) -> Any:
    """The object after the answer's patch."""
    response = json.loads(answer)["response"]
    if "patch" not in response:
        return copy.deepcopy(new)
    assert response["patchType"] == "JSONPatch"
    return patched(new, json.loads(base64.b64decode(response["patch"])))


def patched(document: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902 `add`, `remove` and `replace`, strictly: an operation on what is not there is an error."""
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        *parents, last = [""] + [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        place: Any = root
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        value = copy.deepcopy(operation.get("value"))
        match operation["op"], place:
            case "add", list():
                index = len(place) if last == "-" else int(last)
                assert 0 <= index <= len(place)
                place.insert(index, value)
            case "add", dict():
                place[last] = value
            case "remove", list():
                del place[int(last)]
            case "remove", dict():
                del place[last]
            case "replace", list():
                place[int(last)] = value
            case "replace", dict():
                assert last in place
                place[last] = value
            case _:
                raise AssertionError(operation)
    return root[""]
