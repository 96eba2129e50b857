"""Invariant: what a tenant writes into annotations, or into a pod's environment, is a setting or a SettingError; settings
survive their way from the webhook to the proxy; and what a pod says of itself is read or refused.

The input is lines of `name: value`. Names of settings are annotations, names in capitals are environment variables.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from fuzz.engine.cost import Bound, Meter
from fuzz.engine.session import start
from fuzz.refusals import check_fault, check_text
from knative_sponge.controller.annotations import faults, read_settings
from knative_sponge.core.latency.profile import from_json
from knative_sponge.core.quantity import parse_duration_s, parse_quantity
from knative_sponge.errors import ProfileError, SettingError
from knative_sponge.settings import ControllerSettings, ProxySettings, ServingSettings
from knative_sponge.settings.observability import parse_observability
from knative_sponge.settings.probe import parse_probes
from knative_sponge.settings.serving import ANNOTATION_PREFIX

BOUND: Final = Bound()
TOKENS: Final = (
    *(f"{name}: ".encode() for name in ServingSettings.names()), b"500ms", b"1m30s", b"1.5s", b"250m", b"2Gi", b"1e3",
    b"1E", b"\xc2\xb5s", b"9", b"0.", b".5", b"e999999999", b"inf", b"nan", b"v2", b"equal", b"hybrid", b"/cpu",
    b"\n", b" ", b"1_000", b"\xd9\xa3", b"-1", b"SERVING_READINESS_PROBE: ", b'{"httpGet":{"path":"/","port":8080}}',
    b'{"tcpSocket":{}}', b'"periodSeconds":1e400', b'{"grpc":{}}', b"OBSERVABILITY_CONFIG: ",
    b'{"requestMetrics":{"protocol":"prometheus","endpoint":":1"}}', b"REVISION_TIMEOUT_SECONDS: ",
    b"SPONGE_MAX_BODY: ", b"SPONGE_CORES: ", b"CONTAINER_CONCURRENCY: ", b"USER_PORT: ", b"SPONGE_LEASE_DURATION: ",
    b"profile: ", b'{"version":1,"prior":{"gamma":1,"delta":1,"epsilon":1,"eta":1}}', b'"samples":1', b'"level":1',
    b'"regions":[]', b"[", b"]", b"{", b"}",
)  # fmt: skip
_JUDGED: Final = 2**12
_PROXY: Final = {
    "SERVING_NAMESPACE": "n", "SERVING_CONFIGURATION": "c", "SERVING_REVISION": "r", "SERVING_POD": "p",
    "SERVING_POD_IP": "127.0.0.1", "QUEUE_SERVING_PORT": "8012", "QUEUE_SERVING_TLS_PORT": "8112",
    "USER_PORT": "8080", "CONTAINER_CONCURRENCY": "0", "REVISION_TIMEOUT_SECONDS": "300",
    "SERVING_LOGGING_CONFIG": "", "SERVING_LOGGING_LEVEL": "",
}  # fmt: skip
_CONTROLLER: Final = {"POD_NAME": "p", "POD_NAMESPACE": "n", "SPONGE_QUEUE_PROXY_IMAGE": "i"}


def check(data: bytes, meter: Meter) -> None:
    """See the module."""
    lines = [line.partition(":") for line in data.decode("utf-8", "replace").split("\n")]
    pairs = {name.strip(): value.strip() for name, _, value in lines if name.strip()}
    known = set(ServingSettings.names())
    annotations = {ANNOTATION_PREFIX + name if name in known else name: value for name, value in pairs.items()}
    check_settings(annotations, len(data), meter)
    for text in pairs.values():
        check_texts(text, meter)
    variables = {name: value for name, value in pairs.items() if name.isupper()}
    with contextlib.suppress(SettingError):
        meter(len(data), ProxySettings.from_env, _PROXY | variables)
    with contextlib.suppress(SettingError):
        meter(len(data), ControllerSettings.from_env, _CONTROLLER | variables)
    if "profile" in pairs:
        check_profile(pairs["profile"], meter)


def check_settings(annotations: Mapping[str, str], size: int, meter: Meter) -> None:
    """All faults are found, or there is none and the settings reach the proxy as they are."""
    found = meter(size, faults, annotations)
    for fault in found:
        check_fault(fault)
    try:
        read = meter(size, read_settings, annotations)
    except SettingError as error:
        check_fault(error)
        assert found, "refused, but without a fault"
        return
    assert not found, "a fault, but not refused"
    sent = read.to_env()
    received = ServingSettings.from_env(sent)
    assert received.to_env() == sent, "what the proxy reads is not what the webhook wrote"


def check_texts(text: str, meter: Meter) -> None:
    """Every parser of a value that a tenant can set, on every value: they raise ValueError and nothing else."""
    parsers: tuple[Callable[[str], Any], ...] = (parse_duration_s, parse_quantity, parse_observability, _probes)
    for parse in parsers:
        try:
            meter(len(text), parse, text)
        except ValueError as error:
            if not isinstance(error, json.JSONDecodeError):
                check_text(str(error))


def _probes(text: str) -> Any:
    return parse_probes(text, "127.0.0.1", 8080)


def check_profile(text: str, meter: Meter) -> None:
    """A profile that a pod offers is a model or a ProfileError, and a model predicts."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    try:
        model = meter(len(text), from_json, document)
    except ProfileError as error:
        check_text(str(error))
        return
    assert model.predict_s(1, 1.0) >= 0


if __name__ == "__main__":
    start("annotations")
