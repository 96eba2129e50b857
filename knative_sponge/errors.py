"""Every way a request or a setting can fail, each with one Reason; nothing here handles anything.

The tree::

    SpongeError
    ├── SettingError          a setting that cannot be used: names it, the value and what is allowed
    ├── ProfileError          a latency profile that cannot be read
    ├── WireError             a proxy's admin port is not there, or says what cannot be; carries its status
    ├── KubeError             the API server did not do what was asked; carries its status and reason
    │   ├── KubeUnreachable       no answer, or none that can be read
    │   ├── KubeNotFound          no such object (404)
    │   ├── KubeConflict          changed meanwhile, or exists already (409)
    │   ├── KubeGone              the watched history is gone: list again (410)
    │   └── NotLeader             never asked: this replica does not lead
    └── RequestFailed         one request ends without the model server's answer; carries a Reason
        ├── BadRequest            the client's request cannot be understood (400, 413)
        ├── QueueFull             as many requests wait as may, or hold as many bytes (503)
        ├── Draining              the proxy ended before the request was understood (503)
        └── UpstreamError         the model server's side
            ├── UpstreamRefused       no connection could be made (502)
            ├── UpstreamBroken        connection lost or answer unreadable (502)
            ├── UpstreamMismatch      the answer has the wrong row count (502)
            └── UpstreamTimeout       no answer in time (504)
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final


class Reason(StrEnum):
    """Why a request was not answered by the model server (docs/design.md §3.3).

    The value is the response header `sponge-reason`, the metric label and the word in logs and docs.
    """

    EXPIRED = "expired"
    HOPELESS = "hopeless"
    EVICTED = "evicted"
    QUEUE_FULL = "queue-full"
    UPSTREAM_REFUSED = "upstream-refused"
    UPSTREAM_ERROR = "upstream-error"
    UPSTREAM_MISMATCH = "upstream-mismatch"
    BAD_REQUEST = "bad-request"
    DRAINING = "draining"
    TIMEOUT = "timeout"

    @property
    def status(self) -> int:
        """The HTTP status that goes with the reason."""
        return _STATUS[self]

    def event_status(self, left_s: float, status: int | None = None) -> int:
        """The HTTP status for a CloudEvent, `left_s` seconds before its deadline; it tells eventing what to do next.

        Knative's eventing sends an event again after 404, 408, 409, 429, 5xx and silence, and hands it to the dead
        letter sink at once after any other 4xx (docs/knative-contract.md §7). No repetition saves an event that is late, so
        that is `UNDELIVERABLE`; what failed with time left keeps `status`, or else the reason's own.
        """
        usual = self.status if status is None else status
        if self is Reason.BAD_REQUEST:
            return usual
        late = left_s <= 0 or self in (Reason.EXPIRED, Reason.HOPELESS)
        return UNDELIVERABLE if late else usual


UNDELIVERABLE: Final = 422
"""Understood, and cannot be done any more. Not 408, which is sent again; not 410, which tells senders of CloudEvents to
stop sending to this address altogether (HTTP 1.1 Web Hooks for Event Delivery §2.1)."""

_STATUS = {
    Reason.EXPIRED: 504,
    Reason.HOPELESS: 504,
    Reason.EVICTED: 503,
    Reason.QUEUE_FULL: 503,
    Reason.UPSTREAM_REFUSED: 502,
    Reason.UPSTREAM_ERROR: 502,
    Reason.UPSTREAM_MISMATCH: 502,
    Reason.BAD_REQUEST: 400,
    Reason.DRAINING: 503,
    Reason.TIMEOUT: 504,
}


_MOST_SHOWN: Final = 200
_MOST_DIGITS: Final = 1000


def shown(value: object, most: int = _MOST_SHOWN) -> str:
    """A stranger's value for an error text: as Python spells it, cut to `most` characters.

    Lists, objects and giant numbers are named by their kind only: spelling them out could take longer than parsing did.
    """
    match value:
        case str() | bytes():
            text = repr(value[:most])
            return text if len(text) <= most and len(value) <= most else text[: most - 2] + text[-1] + "…"
        case int() if value.bit_length() > _MOST_DIGITS:
            return f"a whole number of {value.bit_length()} bits"
        case None | int() | float():
            return repr(value)
        case list() | dict():
            return f"a {type(value).__name__}"
    return repr(value)[:most]


class SpongeError(Exception):
    """Root of everything this package raises on purpose."""


class SettingError(SpongeError):
    """A setting has a value that cannot be used."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name[:_MOST_SHOWN]}: {shown(value)} is not allowed; expected {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class ProfileError(SpongeError):
    """A latency profile (JSON) is malformed; the message says where."""


class WireError(SpongeError):
    """The other side of an admin port cannot be reached, or what it says is no message; `status` is HTTP's, 0 for none."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class KubeError(SpongeError):
    """The API server refused; `status` is HTTP's, 0 for no answer; `reason` is the word of its Status object."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class KubeUnreachable(KubeError):
    """No answer in time, or none that can be read; a write may have had an effect."""


class KubeNotFound(KubeError):
    """There is no such object."""


class KubeConflict(KubeError):
    """The object was changed since it was read, or exists already (`reason` is `AlreadyExists`)."""


class KubeGone(KubeError):
    """The resource version to watch from is too old: list again."""


class NotLeader(KubeError):
    """A write was held back: this replica does not hold the lease, or not surely."""


class RequestFailed(SpongeError):
    """One request ends without the model server's own answer."""

    reason: ClassVar[Reason]

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = self.reason.status if status is None else status


class BadRequest(RequestFailed):
    """The client sent something that cannot be understood; `status` may be 413 or 417."""

    reason = Reason.BAD_REQUEST


class QueueFull(RequestFailed):
    """As many requests are in the proxy as may be, or as many bytes; the request had no effect.

    retry_after_s: when the client may try again, whole seconds; None says nothing about it.
    """

    reason = Reason.QUEUE_FULL

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Draining(RequestFailed):
    """The proxy ends, and the request had no effect."""

    reason = Reason.DRAINING


class UpstreamError(RequestFailed):
    """The model server's side failed."""

    reason = Reason.UPSTREAM_ERROR


class UpstreamRefused(UpstreamError):
    """No connection to the model server could be made: the request had no effect."""

    reason = Reason.UPSTREAM_REFUSED


class UpstreamBroken(UpstreamError):
    """The connection broke or the answer was not HTTP: the request may have had an effect."""


class UpstreamMismatch(UpstreamError):
    """A merged call was answered with the wrong number of rows."""

    reason = Reason.UPSTREAM_MISMATCH


class UpstreamTimeout(UpstreamError):
    """The model server did not answer in time."""

    reason = Reason.TIMEOUT
