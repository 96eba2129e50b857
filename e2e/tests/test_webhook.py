"""The webhook away, and its certificates changing: neither may keep a Service from starting."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509

from e2e.harness.kube import Kube, Object, container
from e2e.harness.services import SLO, Services
from e2e.install import NAMESPACE
from e2e.tests.conftest import Measure

_SMALL = ["--request", "cpu=50m"]
_LIFETIME_S = 90
_SHORT = {"SPONGE_CERT_LIFETIME": f"{_LIFETIME_S}s", "SPONGE_CERT_RENEW_SHARE": "0.5"}


_CONFIGURATIONS = {"mutatingwebhookconfiguration": 2, "validatingwebhookconfiguration": 1}


@contextmanager
def _unreachable(kube: Kube) -> Iterator[None]:
    """While the block runs, the API server calls the webhook where nobody listens.

    (Taking the endpoints away would not do: it keeps using the connection that it has.)
    """

    def point_at(port: int) -> None:
        for kind, webhooks in _CONFIGURATIONS.items():
            path = "/webhooks/{}/clientConfig/service/port"
            change = [{"op": "replace", "path": path.format(number), "value": port} for number in range(webhooks)]
            kube("patch", kind, "knative-sponge", "--type=json", "-p", json.dumps(change))

    def reviewed() -> bool:
        return "knative-sponge.dev/proxy" in _dry_run(kube, "default")["metadata"]["annotations"]

    point_at(444)
    kube.until("pods to be missed", lambda: not reviewed())
    try:
        yield
    finally:
        point_at(443)
        kube.until("pods to be reviewed", reviewed)


def test_without_the_webhook_services_start_on_stock_and_it_is_reported(services: Services, kube: Kube) -> None:
    with _unreachable(kube):
        service = services.create("echo", "echo", annotations={SLO: "5s"}, more=_SMALL)
        assert service.client.get("/echo").status == 200
        (pod,) = kube.pods("echo", services.namespace)
        assert "knative-sponge" not in container(pod, "queue-proxy")["image"]
        revision = pod["metadata"]["labels"]["serving.knative.dev/revision"]

        def reported() -> bool:
            events = kube.events_of("Revision", revision, services.namespace)
            return any(event["reason"] == "StockProxy" and event["type"] == "Warning" for event in events)

        kube.until("an event about it", reported)
    services.update("echo", env={"VERSION": "2"})
    assert "knative-sponge" in container(kube.pods("echo", services.namespace)[-1], "queue-proxy")["image"]


def _dry_pod(namespace: str) -> Object:
    """A pod as Knative would create it, as far as the webhook looks."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "dry-",
            "namespace": namespace,
            "labels": {"serving.knative.dev/revision": "r"},
            "annotations": {SLO: "1s"},
        },
        "spec": {
            "containers": [
                {
                    "name": "user-container",
                    "image": "dev.local/a:dev",
                    "ports": [{"name": "user-port", "containerPort": 8080}],
                },
                {
                    "name": "queue-proxy",
                    "image": "dev.local/q:dev",
                    "env": [{"name": "QUEUE_SERVING_PORT", "value": "8012"}],
                },
            ]
        },
    }


def _dry_run(kube: Kube, namespace: str) -> Object:
    """What the API server would have made of it."""
    text = json.dumps(_dry_pod(namespace))
    made: Object = json.loads(kube("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text))
    return made


def _serial(kube: Kube) -> int:
    pem = base64.b64decode(kube.get("secret", "webhook-certs", NAMESPACE)["data"]["tls.crt"])
    return x509.load_pem_x509_certificate(pem).serial_number


def _longest_s(kube: Kube) -> float:
    """How long the certificate lives that is shown longest by any replica."""
    pages = [kube.pod_get(pod, 9090, "/metrics") for pod in kube.find("pods", NAMESPACE)]
    ends = [float(re.findall(r"^sponge_webhook_certificate_expiry_seconds (\S+)$", page, re.M)[0]) for page in pages]
    return max(ends) - time.time()


@contextmanager
def _short_lived(kube: Kube) -> Iterator[None]:
    """While the block runs, certificates live for a minute and a half, and every replica shows such a one."""
    kube("set", "env", "deployment/autoscaler", "-n", NAMESPACE, *(f"{name}={value}" for name, value in _SHORT.items()))
    try:
        kube("rollout", "status", "deployment/autoscaler", "-n", NAMESPACE, "--timeout=90s", timeout_s=100)
        kube.until("the old replicas to be gone", lambda: len(kube.find("pods", NAMESPACE)) == 2)
        uid = kube.get("secret", "webhook-certs", NAMESPACE)["metadata"]["uid"]
        kube.delete("secret", "webhook-certs", NAMESPACE)
        kube.until("a new secret", lambda: kube.get("secret", "webhook-certs", NAMESPACE)["metadata"]["uid"] != uid)
        kube.until("every replica to show a certificate of the new lifetime", lambda: _longest_s(kube) < _LIFETIME_S)
        yield
    finally:
        kube("set", "env", "deployment/autoscaler", "-n", NAMESPACE, *(f"{name}-" for name in _SHORT))
        kube("rollout", "status", "deployment/autoscaler", "-n", NAMESPACE, "--timeout=90s", timeout_s=100)


def test_certificates_change_without_a_restart_or_a_missed_pod(kube: Kube, namespace: str, measure: Measure) -> None:
    with _short_lived(kube):
        pods = {one["metadata"]["name"] for one in kube.find("pods", NAMESPACE)}
        serials, reviews = {_serial(kube)}, 0

        def renewed() -> bool:
            nonlocal reviews
            made = _dry_run(kube, namespace)
            assert made["metadata"]["annotations"].get("knative-sponge.dev/proxy") == "sponge"
            reviews += 1
            serials.add(_serial(kube))
            return len(serials) > 2

        kube.until("two renewals", renewed, timeout_s=200)
        after = kube.find("pods", NAMESPACE)
    assert pods == {one["metadata"]["name"] for one in after}
    assert {status["restartCount"] for one in after for status in one["status"]["containerStatuses"]} == {0}
    measure("certificates seen", len(serials))
    measure("pods reviewed meanwhile, all by the webhook", reviews)
