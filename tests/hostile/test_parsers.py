"""Invariant: no parser of a text that a stranger writes takes more than time in proportion to its length."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from knative_sponge.codec.base import RequestHead
from knative_sponge.codec.cloudevents.event import is_json, is_utf8, read_event
from knative_sponge.codec.json.skeleton import Skeleton
from knative_sponge.codec.json.text import JsonText, json_fault
from knative_sponge.codec.select import codec_for
from knative_sponge.controller.admission.admission_review import read_review
from knative_sponge.controller.admission.stock_proxy_report import _why
from knative_sponge.controller.annotations import INITIAL_SCALE, MAX_SCALE, MIN_SCALE, RETENTION, WINDOW, faults
from knative_sponge.controller.profiles.profile import from_text
from knative_sponge.controller.revisions.activators import held_requests
from knative_sponge.controller.revisions.idle import IdleRules
from knative_sponge.controller.revisions.scale import ScaleBounds
from knative_sponge.controller.sizing.memory_usage import working_sets
from knative_sponge.core.batching.deadline import CLAIM_HEADERS, ClientBudget, claims_of, deadline_of, rfc3339_s
from knative_sponge.core.quantity import parse_duration_s, parse_quantity
from knative_sponge.errors import SpongeError
from knative_sponge.proxy.knative.log_template import Template
from knative_sponge.settings import ProxySettings, ServingSettings
from knative_sponge.settings.observability import parse_observability
from knative_sponge.settings.probe import parse_probes
from knative_sponge.settings.serving import ANNOTATION_PREFIX, EFFECTIVE, ENV_PREFIX
from knative_sponge.wire.demand import decode_demand
from tests.hostile.dear import at_most
from tests.proxy.test_proxy_settings import KNATIVE

LENGTH = 2**20
MOST_CPU_S = 0.6
"""Five times the slowest of them, the comments of a log template. A parser whose time grows with the square takes hours."""

UNITS = (
    "1", "9", "1.", ".1", "1s", "1h1", "1e", "1e9", "-1", "+1", "1_", "1,", "1:", " ", "\t", "\n", "\0", "٣", "é", "\U0001f600",
    '"', "\\", '\\"', '":', '"a":', '"data":[', "[", "]", "[]", "{", "{}", '{"a":', '{"":0},', "[[],", "null,", "NaN", "NaN,",
    "-Infinity,", "\\ud800", "\\u0061", "{{", "{{-  ", "{{/*", "/*a*/", "`", "}}", "a/", "a+", ";", "; charset=", "%", "%41",
    "=", 'a="', "@sha256:" + "a" * 64, "/v1/models/", ":predict", "/versions/", "/infer", "T00:00:00", "a", "ａ",
    '\nkn_revision_request_queued{k8s_namespace_name="', '\ncontainer_memory_working_set_bytes{a="b"} ', "} 1",
)  # fmt: skip
"""What the texts are made of: pieces of what the parsers look for, and so what they could try in many ways."""


def framed(unit: str, before: str = "", after: str = "") -> str:
    return before + unit * (LENGTH // len(unit.encode())) + after


TEXTS = {
    **{f"{unit[:20]!r} again and again, and what does not fit": framed(unit, after="!") for unit in UNITS},
    "a template of comments": framed("/*a*/", "{{"),
    "a template of strings": framed('"a"', "{{"),
    "a JSON type of suffixes": framed("a+", "a/"),
    "labels without an end": framed("a", "\ncontainer_memory_working_set_bytes{", "} 1\n"),
    "labels of an activator without an end": framed('k8s_namespace_name="', "\nkn_revision_request_queued{", "} x\n"),
}

STRINGS = {f"{unit[:20]!r} again and again in a string": framed(unit, '{"a":"', '"}') for unit in UNITS}


def annotation(name: str) -> Callable[[str], object]:
    return lambda text: [str(fault) for fault in faults({ANNOTATION_PREFIX + name: text})]


def setting(name: str) -> Callable[[str], object]:
    return lambda text: ServingSettings.from_env({ENV_PREFIX + name.replace("-", "_").upper(): text})


def scale(name: str) -> Callable[[str], object]:
    return lambda text: ScaleBounds.of({name: text}, {})


def idle(name: str) -> Callable[[str], object]:
    return lambda text: IdleRules.of({name: text}, {})


def variable(name: str) -> Callable[[str], object]:
    return lambda text: ProxySettings.from_env({**KNATIVE, name: text.replace("\0", "")})


def claim(name: bytes) -> Callable[[str], object]:
    def parse(text: str) -> object:
        claims = claims_of([(name, text.encode())])
        return deadline_of(
            claims,
            now=0.0,
            wall_now_s=0.0,
            slo_s=1.0,
            timeout_s=9.0,
            max_network_share=0.9,
            client_budget=ClientBudget.SHORTER,
        )

    return parse


def body(protocol: str, target: bytes, *headers: tuple[bytes, bytes]) -> Callable[[str], object]:
    codec = codec_for(protocol)
    return lambda text: codec.parse(RequestHead("POST", target, headers), text.encode())


def event(header: bytes) -> Callable[[str], object]:
    required = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"s"), (b"ce-type", b"t")]
    return lambda text: read_event(RequestHead("POST", b"/", [*required, (header, text.encode())]), b"")


def activator(text: str) -> Mapping[Any, float]:
    async def chunks() -> AsyncIterator[bytes]:
        yield text.encode()

    return asyncio.run(held_requests(chunks()))


def probe(text: str) -> object:
    quoted = json.dumps(text)
    return parse_probes(
        f'{{"httpGet":{{"path":{quoted},"port":{quoted},"scheme":{quoted}}},"periodSeconds":{quoted}}}', "h", 1
    )


JSON_TYPE = (b"content-type", b"application/json")
EVENT_TYPE = (b"content-type", b"application/cloudevents+json")
VARIABLES = (
    "USER_PORT", "CONTAINER_CONCURRENCY", "REVISION_TIMEOUT_SECONDS", "REVISION_IDLE_TIMEOUT_SECONDS", "QUEUE_SERVING_PORT",
    "SERVING_READINESS_PROBE", "OBSERVABILITY_CONFIG", "SERVING_LOGGING_LEVEL", "SERVING_LOGGING_CONFIG", "SPONGE_CORES",
    "SPONGE_MAX_ANSWER", "SPONGE_CFS_PERIOD", "SPONGE_POLICY", "ENABLE_HTTP2_AUTO_DETECTION", "QUEUE_PROXY_TLS_MIN_VERSION",
)  # fmt: skip

PARSERS: Mapping[str, Callable[[str], object]] = {
    "duration": parse_duration_s,
    "quantity": parse_quantity,
    **{f"annotation {name}": annotation(name) for name in (*ServingSettings.names(), "effective", "proxy", "unknown")},
    "name of an annotation": lambda text: [str(fault) for fault in faults({ANNOTATION_PREFIX + text: "1"})],
    **{f"setting {name}": setting(name) for name in ServingSettings.names()},
    **{f"variable {name}": variable(name) for name in VARIABLES},
    **{f"annotation {name}": scale(name) for name in (*MIN_SCALE, *MAX_SCALE, *INITIAL_SCALE)},
    **{f"annotation {name}": idle(name) for name in (*WINDOW, *RETENTION)},
    **{f"header {name.decode()}": claim(name) for name in sorted(CLAIM_HEADERS)},
    "timestamp": rfc3339_s,
    "probe": lambda text: parse_probes(text, "h", 1),
    "fields of a probe": probe,
    "observability": parse_observability,
    "endpoint of observability": lambda text: parse_observability(
        json.dumps({"requestMetrics": {"protocol": "prometheus", "endpoint": text}})
    ),
    "annotation effective of a pod": lambda text: _why({EFFECTIVE: text}),
    "log template": lambda text: Template[None](text, {}, lambda _subject, _name: ""),
    "admission review": lambda text: read_review(text.encode()),
    "line of demand": lambda text: decode_demand(text.encode()),
    "profile": from_text,
    "metrics of an activator": activator,
    "metrics of a kubelet": working_sets,
    "path of V1": lambda text: codec_for("v1").wants(RequestHead("POST", b"/v1/models/" + text.encode(), ())),
    "path of V2": lambda text: codec_for("v2").wants(RequestHead("POST", b"/v2/models/" + text.encode(), ())),
    "body of V1": body("v1", b"/v1/models/m:predict", JSON_TYPE),
    "body of V2": body("v2", b"/v2/models/m/infer", JSON_TYPE),
    "body of an array": body("json-array", b"/", JSON_TYPE),
    "structured event": body("cloudevents", b"/", EVENT_TYPE),
    "length of JSON": lambda text: codec_for("v2").parse(
        RequestHead("POST", b"/v2/models/m/infer", [(b"inference-header-content-length", text.encode())]), b"{}"
    ),
    **{f"event's {name.decode()}": event(name) for name in (b"ce-time", b"ce-x", b"content-type")},
    "media type": lambda text: (is_json(text), is_json("a/" + text), is_utf8(text), is_utf8("a;" + text)),
    "JSON": lambda text: (json_fault(text.encode()), JsonText(text.encode(), lift=True).frame),
    "structure": lambda text: Skeleton.of(text.encode()),
}
OF_JSON = frozenset(
    {
        "body of V1", "body of V2", "body of an array", "structured event", "JSON", "structure", "probe", "observability",
        "admission review", "line of demand",
    }
)  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a_megabyte_of_anything_is_parsed_or_refused_in_a_moment(name: str) -> None:
    for title, text in {**TEXTS, **(STRINGS if name in OF_JSON else {})}.items():
        try:
            with at_most(MOST_CPU_S):
                found = PARSERS[name](text)
        except (SpongeError, ValueError) as error:
            found = [str(error)] if isinstance(error, SpongeError) else []
        except BaseException as error:
            error.add_note(f"{name}: {title}")
            raise
        for line in found if isinstance(found, list) else ():  # names what was wrong, and repeats a little of it
            assert len(line) < 1000, title


@pytest.mark.parametrize("name", [*ServingSettings.names(), "unknown"])
def test_a_value_of_more_than_256_characters_is_refused_by_name_before_it_is_parsed(name: str) -> None:
    (fault,) = faults({ANNOTATION_PREFIX + name: "1" * 257})
    assert fault.name == ANNOTATION_PREFIX + name
    assert name == "unknown" or fault.allowed == "at most 256 characters"
    assert str(fault).count("1") < 200 + len(fault.allowed)


def test_a_template_of_very_many_mistakes_is_told_some_of_them() -> None:
    wrong = {f"{ANNOTATION_PREFIX}{number}": "x" for number in range(30_000)}
    with at_most(MOST_CPU_S):
        assert len(faults(wrong)) == 20
