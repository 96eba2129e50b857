"""The product leaves as docs/install.md says: nothing of it stays, and Services go on, on Knative's own parts."""

from __future__ import annotations

from e2e.harness.client import asking
from e2e.harness.kube import Kube, condition, container
from e2e.harness.services import SLO, Services
from e2e.install import NAMESPACE, install, uninstall
from e2e.running import current
from e2e.tests.conftest import Measure

_CLASS = "autoscaling.knative.dev/class"
_OURS = "sponge.knative-sponge.dev"
_SMALL = ["--request", "cpu=50m"]
_KINDS = (
    "namespace",
    "clusterrole",
    "clusterrolebinding",
    "mutatingwebhookconfiguration",
    "validatingwebhookconfiguration",
    "validatingadmissionpolicy",
    "validatingadmissionpolicybinding",
)
_LABEL = "app.kubernetes.io/part-of=knative-sponge"


def test_uninstalling_leaves_nothing_and_services_on_stock(services: Services, kube: Kube, measure: Measure) -> None:
    service = services.create("echo", "echo", annotations={SLO: "5s"}, more=_SMALL)
    forgotten = services.create("forgotten", "echo", annotations={SLO: "5s"}, more=_SMALL)
    overlay = current().provider.name
    with asking(lambda: service.client.get("/echo")) as tally, asking(lambda: forgotten.client.get("/echo")) as other:
        services.update("echo", annotations={f"{SLO}-": ""})
        for one in kube.find(
            "podautoscalers.autoscaling.internal.knative.dev", services.namespace, "serving.knative.dev/service=echo"
        ):
            if one["metadata"]["annotations"].get(_CLASS) == _OURS:
                services.kn("revision", "delete", one["metadata"]["name"])
        uninstall(kube, overlay)
        try:
            kube.until("its namespace to be gone", lambda: not kube.exists("namespace", NAMESPACE))
            left = [name for kind in _KINDS for name in kube.find(kind, None, _LABEL)]
            left += [name for kind in ("role", "rolebinding") for name in kube.find(kind, "knative-serving", _LABEL)]
            assert left == []
            # A Service that was forgotten serves on; one that starts now is stock altogether.
            assert forgotten.client.get("/echo").status == 200
            late = services.create("late", "echo", annotations={SLO: "5s"}, more=_SMALL)
            assert late.client.get("/echo").status == 200
            for name in ("echo", "late"):
                (pod,) = [p for p in kube.pods(name, services.namespace) if condition(p, "Ready") == "True"]
                assert "knative-sponge" not in container(pod, "queue-proxy")["image"]
                assert (
                    _CLASS
                    not in kube.get("ksvc", name, services.namespace)["spec"]["template"]["metadata"]["annotations"]
                )
        finally:
            install(kube, overlay)
    assert tally.errors == []
    assert other.errors == []
    measure("requests meanwhile", tally.sent + other.sent)
