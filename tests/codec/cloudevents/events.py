"""Events as other programs write and read them: the CloudEvents SDK, and JSON by the standard library."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import strategies as st

from knative_sponge.codec.base import Headers, RequestHead

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).filter(str.strip)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = st.fixed_dictionaries(
    {
        "id": TEXT,
        "source": TEXT,
        "type": TEXT,
        "time": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    },
    optional={
        "subject": TEXT,
        "comexample": TEXT,
        "expirytime": st.just("2030-01-01T00:00:00Z"),
    },
)


def as_text(attributes: Mapping[str, Any]) -> dict[str, str]:
    """What the attributes are as canonical text."""
    return {
        name: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for name, value in attributes.items()
    }


def binary(attributes: Mapping[str, Any], data: Any, kind: str | None) -> tuple[RequestHead, bytes]:
    """The request that the SDK makes of an event in binary mode."""
    more = {} if kind is None else {"datacontenttype": kind}
    return _request(to_binary_event(CloudEvent({**attributes, "specversion": "1.0", **more}, data)))


def structured(attributes: Mapping[str, Any], data: Any, kind: str | None) -> tuple[RequestHead, bytes]:
    """The request that the SDK makes of an event in structured mode."""
    more = {} if kind is None else {"datacontenttype": kind}
    return _request(to_structured_event(CloudEvent({**attributes, "specversion": "1.0", **more}, data)))


def _request(message: HTTPMessage) -> tuple[RequestHead, bytes]:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in message.headers.items()]
    return RequestHead("POST", b"/", headers), message.body


def content_of(event: Mapping[str, Any]) -> Any:
    """The data of an event in JSON: bytes when it is in base64, else the value as it stands."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"], validate=True)
    return event.get("data")


def batch_of(headers: Headers, body: bytes) -> list[dict[str, Any]]:
    """The events of a request or answer in batched mode."""
    assert dict(headers)[b"content-type"] == b"application/cloudevents-batch+json"
    assert int(dict(headers)[b"content-length"]) == len(body)
    found = json.loads(body)
    assert isinstance(found, list)
    return found
