"""The proxy's environment: what Knative must set, what may be missing, and how a wrong value is named."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.settings import Observability, Probe, ProxySettings

KNATIVE = {
    "SERVING_NAMESPACE": "ns",
    "SERVING_CONFIGURATION": "conf",
    "SERVING_REVISION": "rev",
    "SERVING_POD": "pod",
    "SERVING_POD_IP": "10.0.0.1",
    "QUEUE_SERVING_PORT": "8012",
    "QUEUE_SERVING_TLS_PORT": "8112",
    "USER_PORT": "8080",
    "CONTAINER_CONCURRENCY": "0",
    "REVISION_TIMEOUT_SECONDS": "300",
    "SERVING_LOGGING_CONFIG": "",
    "SERVING_LOGGING_LEVEL": "",
}
DEFAULT = ProxySettings(
    namespace="ns",
    configuration="conf",
    revision="rev",
    pod="pod",
    pod_ip="10.0.0.1",
    serving_port=8012,
    tls_port=8112,
    user_port=8080,
    container_concurrency=0,
    timeout_s=300,
)


def networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


def test_what_knative_sets_is_enough() -> None:
    assert ProxySettings.from_env(KNATIVE) == DEFAULT


def test_what_nobody_knows_is_ignored() -> None:
    assert ProxySettings.from_env(KNATIVE | {"SOMETHING": "else", "ENABLE_PROFILING": "maybe"}) == DEFAULT


@pytest.mark.parametrize("name", KNATIVE)
def test_what_knative_must_set_is_missed_by_name(name: str) -> None:
    with pytest.raises(SettingError, match=name):
        ProxySettings.from_env({key: value for key, value in KNATIVE.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SERVING_SERVICE", "svc", replace(DEFAULT, service="svc")),
        ("REVISION_TIMEOUT_SECONDS", "0", replace(DEFAULT, timeout_s=0)),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "7", replace(DEFAULT, response_start_timeout_s=7)),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0", DEFAULT),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "7", replace(DEFAULT, idle_timeout_s=7)),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "", DEFAULT),
        ("OBSERVABILITY_CONFIG", '{"unknown": {}}', DEFAULT),
        ("OBSERVABILITY_CONFIG", '{"requestMetrics": {"protocol": "none", "endpoint": "nowhere"}}', DEFAULT),
        (
            "OBSERVABILITY_CONFIG",
            '{"requestMetrics": {"protocol": "prometheus", "endpoint": "", "exportInterval": 60000000000}}',
            replace(DEFAULT, observability=Observability(request_metrics="prometheus")),
        ),
        (
            "OBSERVABILITY_CONFIG",
            '{"requestMetrics": {"protocol": "prometheus", "endpoint": ":9099"}}',
            replace(DEFAULT, observability=Observability("prometheus", 9099), metrics_port=9099),
        ),
        (
            "OBSERVABILITY_CONFIG",
            '{"enableRequestLog": true, "requestLogTemplate": "{{.TraceID}}", "enableProbeRequestLog": true}',
            replace(DEFAULT, observability=Observability(request_log="{{.TraceID}}", log_probes=True)),
        ),
        ("OBSERVABILITY_CONFIG", '{"requestLogTemplate": "{{.TraceID}}"}', DEFAULT),
        ("METRICS_PROMETHEUS_PORT", "9100", replace(DEFAULT, metrics_port=9100)),
        ("OTEL_SERVICE_NAME", "name", replace(DEFAULT, telemetry_name="name")),
        ("ENABLE_HTTP2_AUTO_DETECTION", "true", replace(DEFAULT, detect_http2=True)),
        ("ENABLE_HTTP2_AUTO_DETECTION", "false", DEFAULT),
        ("ENABLE_HTTP_FULL_DUPLEX", "1", DEFAULT),
        ("SPONGE_HOST", "127.0.0.1", replace(DEFAULT, host="127.0.0.1")),
        ("SPONGE_ADMIN_PORT", "1", replace(DEFAULT, admin_port=1)),
        ("SPONGE_STAT_PORT", "2", replace(DEFAULT, stat_port=2)),
        ("SPONGE_METRICS_PORT", "0", replace(DEFAULT, metrics_port=0)),
        ("SPONGE_UPSTREAM_HOST", "model", replace(DEFAULT, upstream_host="model")),
        ("SPONGE_MEMORY_BUDGET", "100Mi", replace(DEFAULT, memory_budget=100 * 2**20)),
        ("SPONGE_MAX_CONNECTIONS", "100", replace(DEFAULT, max_connections=100)),
        ("SPONGE_HEAD_TIMEOUT", "10s", replace(DEFAULT, head_timeout_s=10.0)),
        ("SPONGE_DELIVERY_TIMEOUT", "5m", replace(DEFAULT, delivery_timeout_s=300.0)),
        ("SPONGE_MAX_ANSWER", "1000", replace(DEFAULT, max_answer=1000)),
        ("SPONGE_MAX_HEAD", "1Mi", replace(DEFAULT, max_head=2**20)),
        ("SPONGE_MAX_HEAD_FIELDS", "1000", replace(DEFAULT, max_head_fields=1000)),
        ("SPONGE_HOST_IPS", "10.0.0.7, fd00::7", replace(DEFAULT, host_ips=networks("10.0.0.7", "fd00::7"))),
        ("SPONGE_HOST_IPS", "100.64.0.9/16", replace(DEFAULT, host_ips=networks("100.64.0.0/16"))),
        ("HOST_IP", "10.0.0.7", replace(DEFAULT, host_ips=networks("10.0.0.7"))),
        ("HOST_IP", "none", DEFAULT),
        ("SPONGE_CORES", "250m", replace(DEFAULT, cores=0.25)),
        ("SPONGE_CONTROL_TOKEN", "secret", replace(DEFAULT, control_token="secret")),
        ("SPONGE_CONTROL_TOKEN_SHA256", "0A" * 32, replace(DEFAULT, control_token_sha256=b"\n" * 32)),
        ("SPONGE_PROFILE", "/p.json", replace(DEFAULT, profile="/p.json")),
        ("SPONGE_CFS_PERIOD", "20ms", replace(DEFAULT, cfs_period_s=0.02)),
        ("SPONGE_DRAIN_QUIET", "0", replace(DEFAULT, drain_quiet_s=0.0)),
        ("SPONGE_DRAIN_QUIET", "", DEFAULT),
    ],
)
def test_what_may_be_set_is_read(name: str, value: str, expected: ProxySettings) -> None:
    assert ProxySettings.from_env(KNATIVE | {name: value}) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USER_PORT", "-1"),
        ("SPONGE_CONTROL_TOKEN_SHA256", "secret"),
        ("SPONGE_CONTROL_TOKEN_SHA256", "0a" * 31),
        ("USER_PORT", ""),
        ("QUEUE_SERVING_PORT", "65536"),
        ("CONTAINER_CONCURRENCY", "-1"),
        ("REVISION_TIMEOUT_SECONDS", "5m"),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "-1"),
        ("OBSERVABILITY_CONFIG", "{"),
        ("OBSERVABILITY_CONFIG", "[]"),
        ("OBSERVABILITY_CONFIG", '{"requestMetrics": "prometheus"}'),
        ("OBSERVABILITY_CONFIG", '{"requestMetrics": {"protocol": 5}}'),
        ("OBSERVABILITY_CONFIG", '{"requestMetrics": {"protocol": "prometheus", "endpoint": "http://host/"}}'),
        ("OBSERVABILITY_CONFIG", '{"requestMetrics": {"protocol": "prometheus", "endpoint": ":70000"}}'),
        ("OBSERVABILITY_CONFIG", '{"enableRequestLog": "yes", "requestLogTemplate": "x"}'),
        ("SPONGE_MAX_ANSWER", "0"),
        ("SPONGE_MAX_HEAD", "0"),
        ("SPONGE_MAX_HEAD_FIELDS", "0"),
        ("SPONGE_HOST_IPS", "10.0.0"),
        ("SPONGE_MEMORY_BUDGET", "7Mi"),
        ("SPONGE_MAX_CONNECTIONS", "0"),
        ("SPONGE_HEAD_TIMEOUT", "10ms"),
        ("SPONGE_DELIVERY_TIMEOUT", "0"),
        ("SPONGE_CORES", "0"),
        ("SPONGE_CFS_PERIOD", "-1s"),
        ("SPONGE_DRAIN_QUIET", "30"),
        ("SERVING_READINESS_PROBE", "{"),
        ("SERVING_READINESS_PROBE", '"text"'),
        ("SERVING_READINESS_PROBE", '{"exec": {"command": ["true"]}}'),
        ("ENABLE_HTTP2_AUTO_DETECTION", "yes"),
        ("ENABLE_MULTI_CONTAINER_PROBES", "2"),
        ("METRICS_PROMETHEUS_PORT", "metrics"),
        ("SERVING_READINESS_PROBE", '{"tcpSocket": {"port": 0.5}}'),
        ("SERVING_READINESS_PROBE", '{"tcpSocket": {"port": 70000}}'),
        ("SERVING_READINESS_PROBE", '{"httpGet": {"httpHeaders": [{"value": "nameless"}]}}'),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{name}: .*expected ."):
        ProxySettings.from_env(KNATIVE | {name: value})


def test_the_control_token_does_not_show() -> None:
    assert "secret" not in repr(ProxySettings.from_env(KNATIVE | {"SPONGE_CONTROL_TOKEN": "secret"}))


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ('{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}', [Probe("127.0.0.1", 8080)]),
        (
            (
                '{"httpGet": {"path": "/ready", "port": 9, "host": "h", "scheme": "HTTPS", "httpHeaders": '
                '[{"name": "X", "value": "y"}]}, "periodSeconds": 5, "timeoutSeconds": 2, "successThreshold": 3}'
            ),
            [Probe("h", 9, "/ready", True, (("X", "y"),), 5.0, 2.0, 3)],
        ),
        ('{"httpGet":{"path":"ready"},"periodSeconds":5}', [Probe("127.0.0.1", 8080, "/ready", period_s=5.0)]),
        (
            '[null, {"tcpSocket":{"port":1}}, {"httpGet":{"port":2}}]',
            [Probe("127.0.0.1", 1), Probe("127.0.0.1", 2, "/")],
        ),
        ('{"grpc":{"port":9,"service":"s"},"successThreshold":1}', [Probe("127.0.0.1", 9, service="s")]),
        ('{"grpc":{}}', [Probe("127.0.0.1", 8080, service="")]),
        ('[{"grpc":{"service":null}},null]', [Probe("127.0.0.1", 8080, service="")]),
        ("[null]", []),
        ("", []),
        ("null", []),
    ],
)
def test_a_readiness_probe_is_what_kubernetes_says(probe: str, expected: list[Probe]) -> None:
    assert list(ProxySettings.from_env(KNATIVE | {"SERVING_READINESS_PROBE": probe}).probes) == expected


def test_the_port_that_ours_names_wins() -> None:
    config = '{"requestMetrics": {"protocol": "prometheus", "endpoint": ":1"}}'
    env = KNATIVE | {"OBSERVABILITY_CONFIG": config, "METRICS_PROMETHEUS_PORT": "2", "SPONGE_METRICS_PORT": "3"}
    assert ProxySettings.from_env(env).metrics_port == 3
    del env["SPONGE_METRICS_PORT"]
    assert ProxySettings.from_env(env).metrics_port == 2


@pytest.mark.parametrize(
    ("name", "value", "warned_of"),
    [
        ("USER_PORT", "http", "'http' is no port number"),
        ("USER_PORT", "no-such-service", "requests go to port 0"),
        ("SERVING_LOGGING_CONFIG", "{", "not JSON"),
        ("SERVING_LOGGING_LEVEL", "loud", "taken as info"),
        ("QUEUE_PROXY_TLS_CIPHER_SUITES", "TLS_AES_128_GCM_SHA256", "not followed"),
        ("QUEUE_PROXY_TLS_CURVE_PREFERENCES", "X25519", "not followed"),
        ("OBSERVABILITY_CONFIG", '{"requestMetrics": {"protocol": "grpc"}}', "'grpc' are not offered"),
        ("OBSERVABILITY_CONFIG", '{"tracing": {"protocol": "grpc"}}', "traces are not written"),
    ],
)
def test_what_gos_proxy_starts_with_too_is_warned_of_but_taken(name: str, value: str, warned_of: str) -> None:
    (found,) = ProxySettings.from_env(KNATIVE | {name: value}).warnings
    assert warned_of in found


def test_what_is_right_raises_no_doubt() -> None:
    env = KNATIVE | {"SERVING_LOGGING_CONFIG": '{"level": "info"}', "SERVING_LOGGING_LEVEL": "ERROR"}
    assert ProxySettings.from_env(env).warnings == ()
