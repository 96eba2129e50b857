"""A pod as the API server stores it after our review."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from knative_sponge.controller.admission.admission_review import json_patch
from knative_sponge.controller.admission.pod import review_pod
from knative_sponge.controller.cluster.control_token import Control
from tests.controller.admission_kit import patched

IMAGE = "registry.example/knative-sponge/queue-proxy@sha256:" + "0" * 64
EFFECTIVE = "knative-sponge.dev/effective"
PROXY = "knative-sponge.dev/proxy"


def no_key(_namespace: str, _cores: float) -> Control | None:
    """A webhook that has read no control key yet."""
    return None


def minted(token: str = "t-1") -> Control:
    """What a pod carries of this token."""
    return Control(f"1.{token}", hashlib.sha256(token.encode()).hexdigest())


def created(pod: Any, image: str = IMAGE, token: str = "t-1") -> Any:
    """The pod as the API server stores it; its input must not change, and no patch may be longer than needed."""
    kept = copy.deepcopy(pod)
    changed = review_pod(pod, image, lambda _namespace, _cores: minted(token)).changed
    assert pod == kept
    stored = patched(pod, json_patch(pod, pod if changed is None else changed))
    assert stored == (pod if changed is None else changed)
    return stored
