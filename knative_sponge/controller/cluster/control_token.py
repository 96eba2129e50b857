"""The tokens of the pods' control routes: what a pod carries of one, and how the controller knows it. Pure.

Who may read a pod must not be able to resize it. So a pod carries the SHA-256 of its token, which opens nothing, and a
reference `<key>.<nonce>`. The token is an HMAC-SHA256 of namespace and nonce under that key, and the keys are in a Secret of
the controller's namespace. The namespace is the one of the pod that is called: who copies a reference into another namespace is
shown a token that opens nothing. Each admission makes a nonce of its own, so a copy within a namespace does not outlive it.

The nonce begins with the millicores of the admission, `<millicores>-<random>`. Nobody without the key can give another size a
digest that fits, so the size that a pod was admitted with needs no word of the pod. What that does not prove: that it was this
pod. Whoever may write pods in a namespace can copy what another pod there carries, or was answered when it was only tried
(`--dry-run=server`). So who goes by that size has to bound it by what the pod holds (`sizing/pod_state.py`), and then a copy
costs others nothing that a pod of that size would not have cost them as well.
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
_RANDOM: Final = 32
"""Characters of what follows the size. Nonces of versions that put no size into them have 32 in all, so none is read as one."""
_REFERENCE: Final = re.compile(r"([0-9]{1,12})\.([-_A-Za-z0-9]{1,64})")
_SIZED: Final = re.compile(rf"([0-9]{{1,8}})-[-_A-Za-z0-9]{{{_RANDOM}}}")
_MOST_MILLICORES: Final = 10**8 - 1


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
        return Control(f"{newest}.{nonce}", _digest(token))

    def admitted(self, namespace: str, reference: str, digest: str) -> float:
        """Cores with which the webhook admitted a pod of this namespace that carried both; 0 where it did not, or did not say
        with how many, or with a key that is not here."""
        found = _REFERENCE.fullmatch(reference)
        sized = None if found is None else _SIZED.fullmatch(found[2])
        token = None if sized is None else self.token(namespace, reference)
        if sized is None or token is None:
            return 0.0
        proven = hmac.compare_digest(_digest(token).encode(), digest.encode(errors="replace"))
        return int(sized[1]) / 1000 if proven else 0.0

    def token(self, namespace: str, reference: str) -> str | None:
        """The token of a pod of this namespace; None where its reference names no key that is here."""
        found = _REFERENCE.fullmatch(reference)
        key = None if found is None else self.keys.get(int(found[1]))
        return None if found is None or key is None else _token(key, namespace, found[2])


def sized_nonce(cores: float, random: str) -> str:
    """A nonce that says with how many cores its pod is admitted, in whole millicores. random: 32 letters, digits, `-` or `_`,
    as `secrets.token_urlsafe(24)` makes them. Raises ValueError for another length."""
    if len(random) != _RANDOM:
        raise ValueError(f"{_RANDOM} random characters are needed, not {len(random)}")
    return f"{round(min(cores * 1000, _MOST_MILLICORES))}-{random}"


def key_named(reference: str) -> int | None:
    """The key that a pod's reference names; None for what is no reference."""
    found = _REFERENCE.fullmatch(reference)
    return None if found is None else int(found[1])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _token(key: bytes, namespace: str, nonce: str) -> str:
    # A NUL is in no namespace and in no nonce, so no two of them make one message.
    message = b"\0".join((_CONTEXT, namespace.encode(), nonce.encode()))
    return base64.urlsafe_b64encode(hmac.digest(key, message, hashlib.sha256)).decode().rstrip("=")
