"""The cluster's resources that the controller uses, and which verbs it uses on each: RBAC as data.

`client.Kube` refuses a verb that is not listed here, and a test compares the list with `manifests/`: code, list and
permissions cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

Object = dict[str, Any]
"""One Kubernetes object, decoded from JSON."""

Key = tuple[str, str]
"""Namespace and name; the namespace is empty for cluster-wide objects."""


class Verb(StrEnum):
    """A verb of RBAC."""

    GET = "get"
    LIST = "list"
    WATCH = "watch"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"


class Scope(StrEnum):
    """Where the permission holds, and so which manifest grants it."""

    CLUSTER = "cluster"
    OWN = "own"
    """Only the namespace that the controller runs in."""
    SYSTEM = "system"
    """Only Knative Serving's namespace."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource (or subresource) of the API, with the verbs in use.

    names: RBAC's resourceNames, where the objects are known beforehand; empty for any object. `create` cannot be so limited.
    """

    group: str
    version: str
    plural: str
    verbs: frozenset[Verb]
    subresource: str = ""
    scope: Scope = Scope.CLUSTER
    names: tuple[str, ...] = ()

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path; without a namespace it is that of all namespaces, without a name that of the collection."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
            if self.subresource:
                parts.append(self.subresource)
        return "/" + "/".join(parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.plural, self.subresource) if part)


def _verbs(*verbs: Verb) -> frozenset[Verb]:
    return frozenset(verbs)


_WATCHED = _verbs(Verb.LIST, Verb.WATCH)

POD_AUTOSCALERS: Final = Resource("autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers", _WATCHED)
POD_AUTOSCALER_STATUS: Final = Resource(
    "autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers", _verbs(Verb.PATCH), subresource="status"
)
POD_AUTOSCALER_FINALIZERS: Final = Resource(
    "autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers", _verbs(Verb.UPDATE), subresource="finalizers"
)
"""Never called: clusters that enforce owner references ask for it when an SKS is made with `blockOwnerDeletion`."""
SERVERLESS_SERVICES: Final = Resource(
    "networking.internal.knative.dev",
    "v1alpha1",
    "serverlessservices",
    _WATCHED | _verbs(Verb.CREATE, Verb.PATCH),
)
REVISIONS: Final = Resource("serving.knative.dev", "v1", "revisions", _WATCHED)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", _WATCHED)
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", _WATCHED)
"""Only those of revisions: each names the Deployment that it is of, and its pods name it."""
DEPLOYMENT_SCALE: Final = Resource("apps", "v1", "deployments", _verbs(Verb.PATCH), subresource="scale")
PODS: Final = Resource("", "v1", "pods", _WATCHED)
POD_RESIZE: Final = Resource("", "v1", "pods", _verbs(Verb.PATCH), subresource="resize")
NODES: Final = Resource("", "v1", "nodes", _WATCHED)
NODE_METRICS: Final = Resource("", "v1", "nodes", _verbs(Verb.GET), subresource="metrics")
"""Kubelets ask the API server who may read their metrics (`controller/sizing/memory_usage.py`). `nodes/proxy` would allow
exec as well."""
EVENTS: Final = Resource("events.k8s.io", "v1", "events", _verbs(Verb.CREATE, Verb.PATCH))
MUTATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    _verbs(Verb.GET, Verb.PATCH),
    names=("knative-sponge",),
)
VALIDATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    _verbs(Verb.GET, Verb.PATCH),
    names=("knative-sponge",),
)
AUTOSCALER_CONFIG: Final = Resource("", "v1", "configmaps", _WATCHED, scope=Scope.SYSTEM, names=("config-autoscaler",))
"""Knative's cluster-wide defaults of min-scale, max-scale and initial-scale, and its settings of scale to zero."""
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", _WATCHED, scope=Scope.SYSTEM)
"""Addresses of the activators. Their metrics tell of requests for revisions without pods."""
PROFILES: Final = Resource(
    "",
    "v1",
    "configmaps",
    _verbs(Verb.GET, Verb.CREATE, Verb.PATCH),
    scope=Scope.OWN,
    names=("knative-sponge-profiles",),
)
"""The latency models that pods of each image have learned."""
LIMITS: Final = Resource("", "v1", "configmaps", _WATCHED, scope=Scope.OWN, names=("knative-sponge-limits",))
"""What an administrator lets each namespace ask for."""
SECRETS: Final = Resource(
    "",
    "v1",
    "secrets",
    _verbs(Verb.GET, Verb.CREATE, Verb.UPDATE),
    scope=Scope.OWN,
    names=("webhook-certs", "control-keys"),
)
"""The webhook's certificates, and the keys of the pods' control tokens."""
LEASES: Final = Resource(
    "coordination.k8s.io",
    "v1",
    "leases",
    _verbs(Verb.GET, Verb.CREATE, Verb.UPDATE),
    scope=Scope.OWN,
    names=("autoscaler",),
)

ALL: Final = (
    POD_AUTOSCALERS,
    POD_AUTOSCALER_STATUS,
    POD_AUTOSCALER_FINALIZERS,
    SERVERLESS_SERVICES,
    REVISIONS,
    DEPLOYMENTS,
    REPLICA_SETS,
    DEPLOYMENT_SCALE,
    PODS,
    POD_RESIZE,
    NODES,
    NODE_METRICS,
    EVENTS,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    AUTOSCALER_CONFIG,
    ENDPOINT_SLICES,
    PROFILES,
    LIMITS,
    SECRETS,
    LEASES,
)
