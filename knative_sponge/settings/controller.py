"""What the autoscaler's process is told by its environment; it reads no cluster object and no annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from knative_sponge.core.quantity import parse_duration_s
from knative_sponge.errors import SettingError

LogLevel = Literal["debug", "info", "warning", "error"]
CertSource = Literal["own", "external"]


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Everything one replica of the autoscaler is told at start (environment of its Deployment)."""

    pod: str
    """Name of this replica: its identity in the leader election and in events."""
    namespace: str
    """Where it runs; its Secret, Lease and webhook Service are here."""
    proxy_image: str
    """Image that the webhook puts into the `queue-proxy` container."""
    former_proxy_images: tuple[str, ...] = ()
    """Images of the queue-proxy that pods may still run and that come from another repository than `proxy_image`. Only pods
    with our image are resized; of `proxy_image` any tag and digest is ours."""
    system_namespace: str = "knative-serving"
    webhook_port: int = 8443
    health_port: int = 8080
    metrics_port: int = 9090
    webhook_service: str = "webhook"
    """Service that the API server calls; the certificate is made for its DNS names."""
    cert_secret: str = "webhook-certs"
    cert_source: CertSource = "own"
    """`external`: somebody else, such as cert-manager, makes the certificates and writes caBundle; they are only read."""
    cert_lifetime_s: float = 2160 * 3600.0
    cert_renew_share: float = 0.33
    """A certificate is renewed when this share of its lifetime is left: a month of three, time to notice a failure."""
    control_secret: str = "control-keys"
    """Secret with the keys of the pods' control tokens."""
    control_key_lifetime_s: float = 2160 * 3600.0
    """New pods use another key after so long; an old key stays while pods name it."""
    lease: str = "autoscaler"
    lease_duration_s: float = 10.0
    """How long after its last sign of life a leader may be replaced; it stops writing well before."""
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        for name in _NAMES:
            if not getattr(self, name):
                raise SettingError(name, "", "a name")
        if not 0 < self.cert_renew_share < 1:
            raise SettingError("cert_renew_share", self.cert_renew_share, str(_share.__doc__))
        for name in ("cert_lifetime_s", "control_key_lifetime_s"):
            if getattr(self, name) < 60:
                raise SettingError(name, getattr(self, name), str(_lifetime.__doc__))
        if self.cert_lifetime_s * min(self.cert_renew_share, 1 - self.cert_renew_share) < _RENEWAL_S:
            allowed = f"both shares of cert_lifetime_s ({self.cert_lifetime_s:g} s) to be {_RENEWAL_S:g} s at least"
            raise SettingError("cert_renew_share", self.cert_renew_share, allowed)
        if self.lease_duration_s < 3:
            raise SettingError("lease_duration_s", self.lease_duration_s, str(_lease_duration.__doc__))

    @property
    def proxy_images(self) -> tuple[str, ...]:
        """The images of our queue-proxy."""
        return (self.proxy_image, *self.former_proxy_images)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ControllerSettings:
        """From the process environment; unknown variables are ignored. Raises SettingError naming the variable."""
        missing = [name for name in _REQUIRED if not env.get(name)]
        if missing:
            raise SettingError(", ".join(missing), None, "every one of these variables to be set")
        values: dict[str, Any] = {setting: env[name] for name, setting in _REQUIRED.items()}
        for name, (setting, parse) in _OPTIONAL.items():
            if text := env.get(name):
                try:
                    values[setting] = parse(text)
                except ValueError as error:
                    raise SettingError(name, text, str(parse.__doc__)) from error
        return cls(**values)


_NAMES: Final = (
    "pod", "namespace", "proxy_image", "system_namespace", "webhook_service", "cert_secret", "control_secret", "lease",
)  # fmt: skip
_RENEWAL_S: Final = 40.0
"""The longest a renewal takes: a new authority must be trusted everywhere before a certificate of it is shown."""


def _name(text: str) -> str:
    """a name"""
    return text


def _images(text: str) -> tuple[str, ...]:
    """images, with commas between them"""
    return tuple(one for each in text.split(",") if (one := each.strip()))


def _port(text: str) -> int:
    """a port number from 0 to 65535"""
    number = int(text)
    if not 0 <= number < 65536:
        raise ValueError
    return number


def _lifetime(text: str) -> float:
    """a duration of at least 1m, such as 2160h"""
    seconds = parse_duration_s(text)
    if seconds < 60:
        raise ValueError
    return seconds


def _lease_duration(text: str) -> float:
    """a duration of at least 3s, such as 15s"""
    seconds = parse_duration_s(text)
    if seconds < 3:
        raise ValueError
    return seconds


def _share(text: str) -> float:
    """a number above 0 and below 1, such as 0.33"""
    number = float(text)
    if not 0 < number < 1:
        raise ValueError
    return number


def _cert_source(text: str) -> CertSource:
    """own or external"""
    match text:
        case "own" | "external":
            return text
    raise ValueError


def _log_level(text: str) -> LogLevel:
    """debug, info, warning or error"""
    level = text.lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError
    return cast("LogLevel", level)


_REQUIRED: Final[Mapping[str, str]] = {
    "POD_NAME": "pod",
    "POD_NAMESPACE": "namespace",
    "SPONGE_QUEUE_PROXY_IMAGE": "proxy_image",
}

_OPTIONAL: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "SPONGE_FORMER_PROXY_IMAGES": ("former_proxy_images", _images),
    "SPONGE_SYSTEM_NAMESPACE": ("system_namespace", _name),
    "SPONGE_WEBHOOK_PORT": ("webhook_port", _port),
    "SPONGE_HEALTH_PORT": ("health_port", _port),
    "SPONGE_METRICS_PORT": ("metrics_port", _port),
    "SPONGE_WEBHOOK_SERVICE": ("webhook_service", _name),
    "SPONGE_CERT_SECRET": ("cert_secret", _name),
    "SPONGE_CERT_SOURCE": ("cert_source", _cert_source),
    "SPONGE_CERT_LIFETIME": ("cert_lifetime_s", _lifetime),
    "SPONGE_CERT_RENEW_SHARE": ("cert_renew_share", _share),
    "SPONGE_CONTROL_SECRET": ("control_secret", _name),
    "SPONGE_CONTROL_KEY_LIFETIME": ("control_key_lifetime_s", _lifetime),
    "SPONGE_LEASE": ("lease", _name),
    "SPONGE_LEASE_DURATION": ("lease_duration_s", _lease_duration),
    "SPONGE_LOG_LEVEL": ("log_level", _log_level),
}
