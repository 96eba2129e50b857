"""Which events came, how often, and what each attempt was answered. No sockets."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

_PREFIX = "ce-"


class NoEvent(Exception):
    """The request carries no CloudEvent; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Received:
    """One attempt to deliver one event.

    attributes: all context attributes, extensions included, by name without `ce-`. mode: `binary` or `structured`.
    body: the event's data; text when it is UTF-8, otherwise hexadecimal in `body_hex`. attempt: 1 for the first.
    """

    attributes: dict[str, str]
    mode: str
    content_type: str
    body: str | None
    body_hex: str | None
    attempt: int
    status: int


@dataclass(slots=True)
class Sink:
    """Takes events; the first `fail_first` attempts for each id are answered `fail_status`."""

    fail_first: int = 0
    fail_status: int = HTTPStatus.SERVICE_UNAVAILABLE
    _received: list[Received] = field(default_factory=list)
    _attempts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: Iterable[tuple[str, str]], body: bytes) -> int:
        """The status to answer with. Raises NoEvent."""
        fields = {name.lower(): value for name, value in headers}
        kind = fields.get("content-type", "")
        if kind.lower().startswith("application/cloudevents+json"):
            mode, attributes, data = "structured", *_structured(body)
        else:
            # HTTP binding, section 3.1.3.2: values are percent-encoded.
            mode, data = "binary", body
            attributes = {n.removeprefix(_PREFIX): unquote(v) for n, v in fields.items() if n.startswith(_PREFIX)}
        for name in ("id", "source", "specversion", "type"):
            if not attributes.get(name):
                raise NoEvent(f"no CloudEvent: {name} is missing")
        key = json.dumps([attributes["source"], attributes["id"]])
        with self._lock:
            self._attempts[key] += 1
            attempt = self._attempts[key]
            status = self.fail_status if attempt <= self.fail_first else HTTPStatus.ACCEPTED
            self._received.append(Received(attributes, mode, kind, *_shown(data), attempt, int(status)))
        return status

    def received(self) -> list[dict[str, Any]]:
        """All attempts, in the order in which they came."""
        with self._lock:
            return [asdict(one) for one in self._received]

    def forget(self) -> None:
        """As if nothing had come."""
        with self._lock:
            self._received.clear()
            self._attempts.clear()


def _structured(body: bytes) -> tuple[dict[str, str], bytes]:
    try:
        event = json.loads(body)
        data = event.pop("data", None)
        encoded = event.pop("data_base64", None)
        raw = None if encoded is None else base64.b64decode(encoded)
        attributes = {name: value if isinstance(value, str) else json.dumps(value) for name, value in event.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise NoEvent("no CloudEvent: the body is not a JSON object") from error
    if raw is not None:
        return attributes, raw
    return attributes, b"" if data is None else json.dumps(data).encode()


def _shown(data: bytes) -> tuple[str | None, str | None]:
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, data.hex()
