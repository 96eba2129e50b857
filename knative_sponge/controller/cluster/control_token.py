"""The tokens of the pods' control routes: what a pod carries of one, and how the controller knows it. Pure.

Who may read a pod must not be able to resize it. So a pod carries the SHA-256 of its token, which opens nothing, and a
reference `<key>.<nonce>`. The token is an HMAC-SHA256 of namespace and nonce under that key, and the keys are in a Secret of
the controller's namespace. The namespace is the one of the pod that is called: who copies a reference into another namespace is
shown a token that opens nothing. Each admission makes a nonce of its own, so a copy within a namespace does not outlive it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

DIGEST: Final = "SPONGE_CONTROL_TOKEN_SHA256"
"""Variable of the pod's proxy: SHA-256 of its token, in hex."""
REFERENCE: Final = "SPONGE_CONTROL_KEY"
"""Variable of the pod's proxy that only the controller reads: which key, and the nonce."""
PLAIN: Final = "SPONGE_CONTROL_TOKEN"
"""Variable with the token itself: without Kubernetes, and in pods that an older version has admitted."""

KEY_BYTES: Final = 32
_CONTEXT: Final = b"knative-sponge control 1"
_REFERENCE: Final = re.compile(r"([0-9]{1,12})\.([-_A-Za-z0-9]{1,64})")


@dataclass(frozen=True, slots=True)
class Control:
    """What a pod carries. reference: `<key>.<nonce>`. digest: 64 hex digits."""

    reference: str
    digest: str


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys, each of KEY_BYTES bytes, by the Unix second in which they were made. Raises ValueError for another size."""

    keys: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if any(len(key) != KEY_BYTES for key in self.keys.values()):
            raise ValueError(f"a key has {KEY_BYTES} bytes")

    @property
    def newest(self) -> int | None:
        """The key that new pods use; None where there is none."""
        return max(self.keys, default=None)

    def mint(self, namespace: str, nonce: str) -> Control | None:
        """What a new pod of this namespace carries, by the newest key; None where there is none. nonce: 1 to 64 letters,
        digits, `-` or `_` that no other pod has."""
        newest = self.newest
        if newest is None:
            return None
        token = _token(self.keys[newest], namespace, nonce)
        return Control(f"{newest}.{nonce}", hashlib.sha256(token.encode()).hexdigest())

    def token(self, namespace: str, reference: str) -> str | None:
        """The token of a pod of this namespace; None where its reference names no key that is here."""
        found = _REFERENCE.fullmatch(reference)
        key = None if found is None else self.keys.get(int(found[1]))
        return None if found is None or key is None else _token(key, namespace, found[2])


def key_named(reference: str) -> int | None:
    """The key that a pod's reference names; None for what is no reference."""
    found = _REFERENCE.fullmatch(reference)
    return None if found is None else int(found[1])


def _token(key: bytes, namespace: str, nonce: str) -> str:
    # A NUL is in no namespace and in no nonce, so no two of them make one message.
    message = b"\0".join((_CONTEXT, namespace.encode(), nonce.encode()))
    return base64.urlsafe_b64encode(hmac.digest(key, message, hashlib.sha256)).decode().rstrip("=")
