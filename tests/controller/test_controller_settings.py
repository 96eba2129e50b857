"""What the autoscaler's environment may say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from knative_sponge.errors import SettingError
from knative_sponge.settings import ControllerSettings
from knative_sponge.settings.controller import _OPTIONAL

NEEDED = {"POD_NAME": "autoscaler-0", "POD_NAMESPACE": "knative-sponge", "SPONGE_QUEUE_PROXY_IMAGE": "queue-proxy:dev"}


def test_three_variables_are_enough() -> None:
    settings = ControllerSettings.from_env(NEEDED | {"PATH": "/bin"})
    assert settings == ControllerSettings("autoscaler-0", "knative-sponge", "queue-proxy:dev")
    assert settings.cert_lifetime_s == 90 * 24 * 3600


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_or_empty_variable_is_named(name: str) -> None:
    for env in ({key: text for key, text in NEEDED.items() if key != name}, NEEDED | {name: ""}):
        with pytest.raises(SettingError, match=name):
            ControllerSettings.from_env(env)


def test_every_variable_is_read() -> None:
    settings = ControllerSettings.from_env(
        NEEDED
        | {
            "SPONGE_FORMER_PROXY_IMAGES": "old/queue-proxy, older/queue-proxy:1",
            "SPONGE_SYSTEM_NAMESPACE": "serving",
            "SPONGE_WEBHOOK_PORT": "9443",
            "SPONGE_HEALTH_PORT": "0",
            "SPONGE_METRICS_PORT": "1",
            "SPONGE_WEBHOOK_SERVICE": "hook",
            "SPONGE_CERT_SECRET": "certs",
            "SPONGE_CERT_LIFETIME": "4m",
            "SPONGE_CERT_RENEW_SHARE": "0.5",
            "SPONGE_LEASE": "leader",
            "SPONGE_LEASE_DURATION": "4s",
            "SPONGE_LOG_LEVEL": "Debug",
        }
    )
    assert settings == ControllerSettings(
        pod="autoscaler-0",
        namespace="knative-sponge",
        proxy_image="queue-proxy:dev",
        former_proxy_images=("old/queue-proxy", "older/queue-proxy:1"),
        system_namespace="serving",
        webhook_port=9443,
        health_port=0,
        metrics_port=1,
        webhook_service="hook",
        cert_secret="certs",
        cert_lifetime_s=240.0,
        cert_renew_share=0.5,
        lease="leader",
        lease_duration_s=4.0,
        log_level="debug",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SPONGE_WEBHOOK_PORT", "https"),
        ("SPONGE_WEBHOOK_PORT", "65536"),
        ("SPONGE_CERT_LIFETIME", "30s"),
        ("SPONGE_CERT_RENEW_SHARE", "1"),
        ("SPONGE_LEASE_DURATION", "1s"),
        ("SPONGE_LOG_LEVEL", "loud"),
        ("SPONGE_CONTROL_KEY_LIFETIME", "30s"),
        ("SPONGE_CERT_SOURCE", "elsewhere"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_is_allowed(name: str, text: str) -> None:
    with pytest.raises(
        SettingError, match=f"{name}: '{text}' is not allowed; expected an?|{name}.*(debug, info|own or external)"
    ):
        ControllerSettings.from_env(NEEDED | {name: text})


@pytest.mark.parametrize(
    "broken",
    [
        {"pod": ""},
        {"cert_renew_share": 1.0},
        {"cert_lifetime_s": 1.0},
        {"lease_duration_s": 1.0},
        {"control_key_lifetime_s": 1.0},
        {"control_secret": ""},
    ],
)
def test_impossible_settings_cannot_be_made(broken: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        ControllerSettings(**({"pod": "p", "namespace": "n", "proxy_image": "i"} | broken))  # type: ignore[arg-type]


def test_every_variable_is_explained_with_its_default() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "install.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]*?)`? \|", text, re.MULTILINE))
    defaults = {name: default for name, default in rows.items() if default != "required"}
    assert ControllerSettings.from_env(NEEDED | defaults) == ControllerSettings.from_env(NEEDED)
    assert set(rows) == {"SPONGE_QUEUE_PROXY_IMAGE", *_OPTIONAL}


@pytest.mark.parametrize("share", ["0.3", "0.7"])
def test_a_lifetime_too_short_to_be_renewed_in_is_refused(share: str) -> None:
    with pytest.raises(SettingError, match="40 s"):
        ControllerSettings.from_env(NEEDED | {"SPONGE_CERT_LIFETIME": "120s", "SPONGE_CERT_RENEW_SHARE": share})
