"""The apps that end-to-end tests talk to: a wrong one would make those tests prove the wrong thing."""

import http.client
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.apps.affine.__main__ import serve as serve_affine
from e2e.apps.affine.model import Affine, Refused
from e2e.apps.events.__main__ import serve as serve_events
from e2e.apps.events.sink import NoEvent, Sink
from e2e.apps.plain_http import Server

EVENT = {"ce-id": "1", "ce-source": "/s", "ce-specversion": "1.0", "ce-type": "t"}
FINITE = st.floats(min_value=0, max_value=1e9)


@contextmanager
def running(server: Server) -> Iterator[http.client.HTTPConnection]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()
        thread.join()
        server.server_close()


def call(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content) if content else None


def tensor(rows: list[list[float]]) -> dict[str, Any]:
    shape = [len(rows), len(rows[0])]
    return {"inputs": [{"name": "x", "datatype": "FP64", "shape": shape, "data": rows}]}


@given(st.integers(1, 3).flatmap(lambda k: st.lists(st.lists(FINITE, min_size=k, max_size=k), min_size=1, max_size=5)))
def test_the_model_computes_each_value_alone(rows: list[list[float]]) -> None:
    model = Affine(3.0, 0.5)
    (output,) = model.infer(tensor(rows))["outputs"]
    assert output["shape"] == [len(rows), len(rows[0])]
    assert output["data"] == [3.0 * value + 0.5 for row in rows for value in row]
    assert model.report() == {"calls": 1, "refused": 0, "rows": len(rows), "largest_batch": len(rows), "cores": 1.0}


@pytest.mark.parametrize("poison", [math.nan, -1.0])
def test_a_poisoned_row_fails_its_call_and_counts_as_refused(poison: float) -> None:
    model = Affine()
    with pytest.raises(Refused, match="poisoned"):
        model.infer(tensor([[1.0], [poison]]))
    assert model.report()["refused"] == 1
    assert model.report()["calls"] == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_work_costs_cpu_time_by_call_and_by_row(threads: int) -> None:
    model = Affine(row_ms=5.0, call_ms=10.0)
    model.resize(threads)
    begun = time.process_time()
    model.infer(tensor([[1.0]] * 4))
    assert time.process_time() - begun >= 0.030


@pytest.mark.parametrize("cores", [0, -1, True, "2", None, math.nan, math.inf])
def test_a_size_that_is_none_is_refused(cores: object) -> None:
    with pytest.raises(Refused):
        Affine().resize(cores)


def test_the_model_server_speaks_the_inference_protocol() -> None:
    with running(serve_affine(Affine(), 0)) as connection:
        assert call(connection, "GET", "/v2/health/ready")[0] == 200
        body = json.dumps({"id": "7", **tensor([[1.0, 2.0]])})
        status, answer = call(connection, "POST", "/v2/models/affine/infer", body)
        assert (status, answer["id"], answer["outputs"][0]["data"]) == (200, "7", [3.0, 5.0])
        chunks = iter([body[:10].encode(), body[10:].encode()])
        status, answer = call(connection, "POST", "/v2/models/affine/infer", chunks)  # in chunks, having no length
        assert (status, answer["outputs"][0]["data"]) == (200, [3.0, 5.0])
        assert call(connection, "POST", "/v2/models/affine/infer", b"[]")[0] == 400
        assert call(connection, "POST", "/cpu", b'{"cores": 1.5}')[0] == 200
        assert call(connection, "POST", "/cpu", b"{}")[0] == 400
        assert call(connection, "GET", "/stats") == (
            200,
            {"calls": 2, "refused": 0, "rows": 2, "largest_batch": 1, "cores": 1.5},
        )
        assert call(connection, "GET", "/nothing")[0] == 404


def test_held_inference_is_answered_once_it_is_released() -> None:
    with running(serve_affine(model := Affine(), 0)) as connection:
        assert call(connection, "POST", "/hold")[0] == 200
        body = json.dumps(tensor([[1.0]]))
        connection.request("POST", "/v2/models/affine/infer", body)
        other = http.client.HTTPConnection(connection.host, connection.port, timeout=10)
        assert call(other, "GET", "/stats")[1]["calls"] == 0  # everything else is answered meanwhile
        assert call(other, "POST", "/release")[0] == 200
        other.close()
        assert connection.getresponse().read()
        assert model.report()["calls"] == 1


def test_the_sink_shows_what_binary_and_structured_events_carried() -> None:
    structured = {"id": "2", "source": "/s", "specversion": "1.0", "type": "t", "n": 3, "data_base64": "gIE="}
    with running(serve_events(Sink(), 0)) as connection:
        connection.request(
            "POST", "/", b"body", EVENT | {"ce-expirytime": "a%20b", "content-type": "text/plain", "x": "y"}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (202, b"")
        body = json.dumps(structured)
        assert call(connection, "POST", "/", body, content_type="application/cloudevents+json") == (202, None)
        first, second = call(connection, "GET", "/received")[1]
        assert first["attributes"] == {
            "id": "1",
            "source": "/s",
            "specversion": "1.0",
            "type": "t",
            "expirytime": "a b",
        }
        assert (first["mode"], first["body"], first["content_type"]) == ("binary", "body", "text/plain")
        assert (second["mode"], second["body_hex"], second["attributes"]["n"]) == ("structured", "8081", "3")
        assert call(connection, "DELETE", "/received") == (204, None)
        assert call(connection, "GET", "/received") == (200, [])
        assert call(connection, "POST", "/", b"no event")[0] == 400


def test_the_first_attempts_of_each_event_fail_when_asked_for() -> None:
    sink = Sink(fail_first=2, fail_status=500)
    other = EVENT | {"ce-id": "2"}
    assert [sink.take(event.items(), b"") for event in (EVENT, EVENT, other, EVENT, other, other)] == [
        *(500, 500, 500, 202, 500, 202)
    ]
    assert [one["attempt"] for one in sink.received()] == [1, 2, 1, 3, 2, 3]


@pytest.mark.parametrize("missing", sorted(EVENT))
def test_a_request_without_a_required_attribute_is_no_event(missing: str) -> None:
    sink = Sink()
    with pytest.raises(NoEvent, match=missing.removeprefix("ce-")):
        sink.take(((name, value) for name, value in EVENT.items() if name != missing), b"")
    assert sink.received() == []
