"""Who may use the admin port's routes: whoever shows the pod's token, and for some of them who asks from the pod itself.

The proxy need not know its token to recognise it: its SHA-256 does. What is in a pod's environment is read by many.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from knative_sponge.settings import ProxySettings
from knative_sponge.wire.http import bearer

_BEARER: Final = bearer("")
_LONGEST: Final = 512
"""Characters of a token that is looked at."""


class Authorisation:
    """digest: SHA-256 of the token, 32 bytes; None lets nobody in by token."""

    def __init__(self, digest: bytes | None) -> None:
        self._digest = digest

    @classmethod
    def of(cls, settings: ProxySettings) -> Authorisation:
        """By the digest, or else by the token itself."""
        if settings.control_token_sha256 is not None:
            return cls(settings.control_token_sha256)
        token = settings.control_token
        return cls(hashlib.sha256(token.encode()).digest() if token else None)

    def allows(self, given: str) -> bool:
        """Is this value of `authorization` the token? Compared in constant time."""
        if self._digest is None or not given.startswith(_BEARER) or len(given) > _LONGEST:
            return False
        token = given.removeprefix(_BEARER).encode("latin-1")
        return hmac.compare_digest(hashlib.sha256(token).digest(), self._digest)
