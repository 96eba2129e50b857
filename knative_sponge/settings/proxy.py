"""What the proxy is told about its pod: the variables of Knative (docs/knative-contract.md §1.1) and ours, parsed only here."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Literal

from knative_sponge.core.quantity import parse_duration_s, parse_quantity
from knative_sponge.errors import SettingError, shown
from knative_sponge.settings.observability import NONE, PROMETHEUS, Observability, parse_observability
from knative_sponge.settings.probe import Probe, parse_probes

Policy = Literal["edf", "fifo"]
TlsVersion = Literal["1.2", "1.3"]


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One proxy beside one model server. Ports may be 0, which lets the system choose (tests)."""

    namespace: str
    configuration: str
    revision: str
    pod: str
    pod_ip: str
    serving_port: int
    """Plain HTTP for users' requests, Knative's probes included: 8012, or 8013 when the user port is named h2c."""
    tls_port: int
    """Served only when certificates are mounted."""
    user_port: int
    """Where the model server listens."""
    container_concurrency: int
    """Requests in flight upstream; 0 is unlimited."""
    timeout_s: float
    """From arrival to the last byte of the answer; 0 answers 504 at once, as Knative's own proxy does."""
    service: str = ""
    response_start_timeout_s: float | None = None
    """From arrival to the first byte of the answer; None is off."""
    idle_timeout_s: float | None = None
    """Between two pieces of the answer, and before the first one; None is off."""
    probes: tuple[Probe, ...] = ()
    """All must pass for the pod to be ready; none means always ready."""
    detect_http2: bool = False
    """HTTP probes try HTTP/2 with prior knowledge first (feature `autodetect-http2`)."""
    observability: Observability = field(default_factory=Observability)
    telemetry_name: str = ""
    """`service.name` of the metrics; empty takes the Service, or else the Configuration."""
    log_level: str = ""
    """Knative's word for it (`debug`, `info`, …); empty is `info`."""
    host: str | None = None
    """Address that every port is bound to; None is all interfaces, IPv4 and IPv6."""
    admin_port: int = 8022
    stat_port: int = 9090
    metrics_port: int = 9091
    upstream_host: str = "127.0.0.1"
    max_answer: int = 256 * 2**20
    """Largest answer of one merged call in bytes, held in memory while it is split."""
    max_head: int = 64 * 2**10
    """Largest head of a request, or of the model server's answer, in bytes, and the largest trailers of either; Go's limit is
    1 MiB. Beyond it a request is answered 431, and the model server's answer is replaced by a 502."""
    max_head_fields: int = 256
    """Most fields of such a head, and of such trailers."""
    memory_budget: int | None = None
    """Bytes that may be held for clients together: connections, heads, bodies, answers. None derives it from the container's
    memory limit, or is 512 MiB where there is none."""
    max_connections: int | None = None
    """Connections of the data ports together; None is what a quarter of the budget and the limit of open files allow."""
    head_timeout_s: float = 60.0
    """From the first byte of a request's head, or the connection's start, to its end: Knative's own proxy allows a minute,
    and so does nginx."""
    delivery_timeout_s: float = 60.0
    """How long a client may take nothing of an answer that is sent to it, before it is cut off, as in nginx."""
    cores: float | None = None
    """Cores of the model server at start; None is unknown."""
    control_token: str | None = field(default=None, repr=False)
    """Bearer token of the control routes, for use without Kubernetes. Without it and its digest they are closed."""
    control_token_sha256: bytes | None = None
    """SHA-256 of that token: on a cluster many may read a pod's environment. It goes before the token."""
    profile: str | None = None
    """A latency profile (JSON) to start warm from: its path, or the profile itself, which begins with `{`."""
    cfs_period_s: float = 0.1
    """Period of the CPU quota that the model server runs under; 0 where none is enforced."""
    policy: Policy = "edf"
    """`fifo` is the baseline that the demo compares with: first come, first served, fixed batch and timeout."""
    fifo_timeout_s: float = 0.05
    """How long the oldest request of a batch waits for it to fill under `fifo`."""
    certificates: str = "/var/lib/knative/certs"
    """Directory of `tls.crt` and `tls.key`; the TLS port is served when it holds them (system-internal-tls)."""
    tls_min_version: TlsVersion = "1.3"
    tls_max_version: TlsVersion | None = None
    """None is the newest."""
    drain_quiet_s: float = 30.0
    """After SIGTERM the proxy serves on until no request has come for so long: routes take a while to forget a pod."""
    host_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where the kubelet calls from, besides the pod's default gateway: the node's addresses (`status.hostIPs`), and networks of
    them where neither is the one that it uses. Nobody else can make probes fail by `/wait-for-drain`, nor pass a probe by."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Settings that are unlikely to be meant, or are not followed. They are logged; Go's queue-proxy starts with them too."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ProxySettings:
        """From the process environment; unknown variables are ignored. Raises SettingError naming the variable."""
        missing = [name for name in _REQUIRED if name not in env]
        if missing:
            raise SettingError(", ".join(missing), None, "every one of these variables to be set")
        values: dict[str, Any] = {}
        for name, (setting, parse) in (*_REQUIRED.items(), *((n, s) for n, s in _OPTIONAL.items() if env.get(n))):
            value = _read(env, name, parse)
            if setting is not None:
                values[setting] = value
        observability = values.get("observability")
        if observability is not None and observability.metrics_port is not None:
            values.setdefault("metrics_port", observability.metrics_port)
        values["host_ips"] = (*values.get("host_ips", ()), *_node_ip(env.get("HOST_IP", "")))
        settings = cls(**values)
        try:
            probes = parse_probes(env.get("SERVING_READINESS_PROBE", ""), settings.upstream_host, settings.user_port)
        except ValueError as error:
            raise SettingError("SERVING_READINESS_PROBE", env["SERVING_READINESS_PROBE"], str(error)) from error
        return replace(settings, probes=probes, warnings=tuple(_warnings(env, settings)))


def _read(env: Mapping[str, str], name: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(env[name])
    except ValueError as error:
        raise SettingError(name, env[name], str(parse.__doc__)) from error


def _port(text: str) -> int:
    """a port number from 0 to 65535"""
    number = int(text)
    if not 0 <= number < 65536:
        raise ValueError
    return number


def _count(text: str) -> int:
    """a whole number of at least 0"""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _bytes(text: str) -> int:
    """a number of bytes, such as 33554432 or 32Mi"""
    amount = parse_quantity(text)
    if amount < 1:
        raise ValueError
    return int(amount)


def _fields(text: str) -> int:
    """a whole number of at least 1"""
    number = _count(text)
    if not number:
        raise ValueError
    return number


def _cores(text: str) -> float:
    """a CPU quantity from 1m to 4096, such as 250m or 2"""
    cores = parse_quantity(text)
    if not 0.001 <= cores <= 4096:
        raise ValueError
    return cores


def _sha256(text: str) -> bytes:
    """64 hex digits"""
    digest = bytes.fromhex(text)
    if len(digest) != 32:
        raise ValueError
    return digest


def _budget(text: str) -> int:
    """a number of bytes of at least 8Mi, such as 256Mi"""
    amount = _bytes(text)
    if amount < 8 * 2**20:
        raise ValueError
    return amount


def _positive(text: str) -> int:
    """a whole number of at least 1"""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _patience(text: str) -> float:
    """a duration of at least 100ms, such as 60s"""
    seconds = parse_duration_s(text)
    if not seconds >= 0.1:
        raise ValueError
    return seconds


def _duration(text: str) -> float:
    """a duration, such as 30s, or 0"""
    return parse_duration_s(text)


def _tls_version(text: str) -> TlsVersion:
    """1.2 or 1.3"""
    match text:
        case "1.2" | "1.3":
            return text
    raise ValueError


def _policy(text: str) -> Policy:
    """edf or fifo"""
    match text:
        case "edf" | "fifo":
            return text
    raise ValueError


def _user_port(text: str) -> int:
    """a port number from 0 to 65535, or a service's name"""
    if not text:
        raise ValueError
    if text.isascii() and text.lstrip("-").isdigit():
        return _port(text)
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        return 0


def _flag(text: str) -> bool:
    """true or false"""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError


def _observability(text: str) -> Observability:
    """the JSON of Knative's observability configuration"""
    return parse_observability(text)


def _limit(text: str) -> float | None:
    """a whole number of seconds, 0 for off"""
    return _count(text) or None


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """addresses or networks, separated by commas, such as 10.0.0.7,fd00::7 or 100.64.0.0/16"""
    return tuple(ip_network(one.strip(), strict=False) for one in text.split(",") if one.strip())


def _node_ip(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """What Knative says of the node. Its own proxy does not read it, so a value that is none keeps nothing from starting."""
    try:
        return (ip_network(text),)
    except ValueError:
        return ()


def _warnings(env: Mapping[str, str], settings: ProxySettings) -> Iterator[str]:
    """See `ProxySettings.warnings`."""
    if not env["USER_PORT"].isdecimal():
        yield f"USER_PORT: {shown(env['USER_PORT'])} is no port number; requests go to port {settings.user_port}"
    if settings.log_level.lower() not in _LOG_LEVELS:
        yield f"SERVING_LOGGING_LEVEL: {shown(settings.log_level)} is unknown; taken as info"
    if env["SERVING_LOGGING_CONFIG"]:
        try:
            json.loads(env["SERVING_LOGGING_CONFIG"])
        except (ValueError, RecursionError):
            yield "SERVING_LOGGING_CONFIG: not JSON; ignored"
    for name in ("QUEUE_PROXY_TLS_CIPHER_SUITES", "QUEUE_PROXY_TLS_CURVE_PREFERENCES"):
        if env.get(name):
            yield f"{name}: not followed; OpenSSL's own choice is used"
    observability = settings.observability
    if observability.request_metrics not in (NONE, PROMETHEUS):
        yield f"request metrics by {shown(observability.request_metrics)} are not offered, only by {PROMETHEUS!r}"
    if observability.tracing != NONE:
        yield "traces are not written; trace headers pass through"


_LOG_LEVELS: Final = frozenset({"", "debug", "info", "warn", "error", "dpanic", "panic", "fatal"})

_Setting = tuple[str | None, Callable[[str], Any]]

_REQUIRED: Final[Mapping[str, _Setting]] = {
    "SERVING_NAMESPACE": ("namespace", str),
    "SERVING_CONFIGURATION": ("configuration", str),
    "SERVING_REVISION": ("revision", str),
    "SERVING_POD": ("pod", str),
    "SERVING_POD_IP": ("pod_ip", str),
    "QUEUE_SERVING_PORT": ("serving_port", _port),
    "QUEUE_SERVING_TLS_PORT": ("tls_port", _port),
    "USER_PORT": ("user_port", _user_port),
    "CONTAINER_CONCURRENCY": ("container_concurrency", _count),
    "REVISION_TIMEOUT_SECONDS": ("timeout_s", _count),
    "SERVING_LOGGING_CONFIG": (None, str),
    "SERVING_LOGGING_LEVEL": ("log_level", str),
}

_OPTIONAL: Final[Mapping[str, _Setting]] = {
    "SERVING_SERVICE": ("service", str),
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS": ("response_start_timeout_s", _limit),
    "REVISION_IDLE_TIMEOUT_SECONDS": ("idle_timeout_s", _limit),
    "ENABLE_HTTP2_AUTO_DETECTION": ("detect_http2", _flag),
    "ENABLE_MULTI_CONTAINER_PROBES": (None, _flag),
    "ENABLE_HTTP_FULL_DUPLEX": (None, _flag),
    "OBSERVABILITY_CONFIG": ("observability", _observability),
    "OTEL_SERVICE_NAME": ("telemetry_name", str),
    "METRICS_PROMETHEUS_PORT": ("metrics_port", _port),
    "QUEUE_PROXY_TLS_MIN_VERSION": ("tls_min_version", _tls_version),
    "QUEUE_PROXY_TLS_MAX_VERSION": ("tls_max_version", _tls_version),
    "SPONGE_HOST": ("host", str),
    "SPONGE_ADMIN_PORT": ("admin_port", _port),
    "SPONGE_STAT_PORT": ("stat_port", _port),
    "SPONGE_METRICS_PORT": ("metrics_port", _port),
    "SPONGE_UPSTREAM_HOST": ("upstream_host", str),
    "SPONGE_MAX_ANSWER": ("max_answer", _bytes),
    "SPONGE_MAX_HEAD": ("max_head", _bytes),
    "SPONGE_MAX_HEAD_FIELDS": ("max_head_fields", _fields),
    "SPONGE_MEMORY_BUDGET": ("memory_budget", _budget),
    "SPONGE_MAX_CONNECTIONS": ("max_connections", _positive),
    "SPONGE_HEAD_TIMEOUT": ("head_timeout_s", _patience),
    "SPONGE_DELIVERY_TIMEOUT": ("delivery_timeout_s", _patience),
    "SPONGE_CORES": ("cores", _cores),
    "SPONGE_CONTROL_TOKEN": ("control_token", str),
    "SPONGE_CONTROL_TOKEN_SHA256": ("control_token_sha256", _sha256),
    "SPONGE_PROFILE": ("profile", str),
    "SPONGE_CERTIFICATES": ("certificates", str),
    "SPONGE_CFS_PERIOD": ("cfs_period_s", _duration),
    "SPONGE_POLICY": ("policy", _policy),
    "SPONGE_FIFO_TIMEOUT": ("fifo_timeout_s", _duration),
    "SPONGE_DRAIN_QUIET": ("drain_quiet_s", _duration),
    "SPONGE_HOST_IPS": ("host_ips", _networks),
}
