"""A pod is a Revision's where each owner names the next by uid; its settings are the Revision's, as far as limits let them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from knative_sponge.controller.cluster.control_token import KeyRing, sized_nonce
from knative_sponge.controller.cluster.namespace_limits import NamespaceLimits
from knative_sponge.controller.cluster.ownership import ALL, Ownership, kept_of_owner, read_owner, repository
from knative_sponge.controller.cluster.pod_fields import kept_fields
from knative_sponge.controller.cluster.watches import kept_of_deployment, kept_of_revision
from tests.controller.admission.pod_kit import IMAGE
from tests.controller.admission_kit import container
from tests.controller.cluster.capacity_kit import Feed
from tests.controller.sized_pod import owners_of, running


class World:
    """A pod and what owns it, as informers tell of them."""

    def __init__(self, images: tuple[str, ...] = (IMAGE,)) -> None:
        self.pod: Any = running(priority="7", max_cores="6")
        self.made = owners_of(self.pod)
        self.revisions, self.deployments = Feed(kept_of_revision), Feed(kept_of_deployment)
        self.replica_sets, self.limits = Feed(kept_of_owner), Feed(lambda item: item)
        feeds: tuple[Any, Any, Any] = (self.revisions, self.deployments, self.replica_sets)
        self.feeds = dict(zip(("revisions", "deployments", "replicasets"), feeds, strict=True))
        limits: Any = self.limits
        self.ring = KeyRing({1: b"k" * 32})
        self.owners = Ownership(*feeds, NamespaceLimits(limits), images=images, proven=self.ring.admitted)
        self.told: list[Any] = []
        self.owners.subscribe(self.told.append)
        self.versions = 0
        for plural in ("revisions", "deployments", "replicasets"):
            self.put(plural)
        self.told.clear()

    def put(self, plural: str) -> None:
        self.versions += 1
        self.made[plural]["metadata"]["resourceVersion"] = str(self.versions)
        self.feeds[plural].put(self.made[plural])

    def limit(self, **entries: str) -> None:
        metadata = {"name": "knative-sponge-limits", "namespace": "knative-sponge", "resourceVersion": "1"}
        self.limits.put({"metadata": metadata, "data": {key.replace("_", "-"): text for key, text in entries.items()}})

    @property
    def owned(self) -> Any:
        return self.owners.owned(kept_fields(copy.deepcopy(self.pod)))


def test_a_pod_whose_owners_prove_it_has_the_settings_and_the_service_of_its_revision() -> None:
    owned = World().owned
    assert (owned.settings.priority, owned.settings.max_cores, owned.service) == (7, 6.0, "hello")
    assert owned.head_room == math.inf


def _bare(world: World) -> None:
    del world.pod["metadata"]["ownerReferences"]


def _by_another_kind(world: World) -> None:
    world.pod["metadata"]["ownerReferences"][0]["kind"] = "Job"


def _by_another_group(world: World) -> None:
    world.pod["metadata"]["ownerReferences"][0]["apiVersion"] = "apps.example/v1"


def _not_controlled(world: World) -> None:
    world.pod["metadata"]["ownerReferences"][0]["controller"] = False


def _guessed_uid(world: World) -> None:
    world.pod["metadata"]["ownerReferences"][0]["uid"] = "guessed"


def _no_uid(world: World) -> None:
    del world.pod["metadata"]["ownerReferences"][0]["uid"]


def _from_another_namespace(world: World) -> None:
    world.pod["metadata"]["namespace"] = "elsewhere"


def _label_of_another_revision(world: World) -> None:
    world.pod["metadata"]["labels"]["serving.knative.dev/revision"] = "other-00001"


def _replica_set_is_gone(world: World) -> None:
    world.replica_sets.remove(("default", world.made["replicasets"]["metadata"]["name"]))


def _replica_set_of_nobody(world: World) -> None:
    del world.made["replicasets"]["metadata"]["ownerReferences"]
    world.put("replicasets")


def _deployment_made_anew(world: World) -> None:
    world.made["deployments"]["metadata"]["uid"] = "another"
    world.put("deployments")


def _revision_is_gone(world: World) -> None:
    world.revisions.remove(("default", "hello-00002"))


def _other_proxy(world: World) -> None:
    container(world.pod, "queue-proxy")["image"] = "registry.example/evil/queue-proxy@sha256:" + "0" * 64


def _no_proxy(world: World) -> None:
    world.pod["spec"]["containers"] = [container(world.pod, "user-container")]


def _settings_that_cannot_be_read(world: World) -> None:
    world.made["revisions"]["metadata"]["annotations"]["knative-sponge.dev/priority"] = "10"
    world.put("revisions")


@pytest.mark.parametrize(
    "change",
    [
        _bare, _by_another_kind, _by_another_group, _not_controlled, _guessed_uid, _no_uid, _from_another_namespace,
        _label_of_another_revision, _replica_set_is_gone, _replica_set_of_nobody, _deployment_made_anew, _revision_is_gone,
        _other_proxy, _no_proxy, _settings_that_cannot_be_read,
    ],
    ids=lambda change: change.__name__.strip("_"),
)  # fmt: skip
def test_a_pod_that_nobody_vouches_for_is_nobodys(change: Callable[[World], None]) -> None:
    world = World()
    change(world)
    assert world.owned is None


def test_what_a_pod_says_of_itself_counts_for_nothing() -> None:
    world = World()
    annotations = world.pod["metadata"]["annotations"]
    annotations |= {"knative-sponge.dev/min-cores": "5", "knative-sponge.dev/priority": "9"}
    world.pod["metadata"]["labels"]["serving.knative.dev/service"] = "another"
    assert (world.owned.settings.priority, world.owned.settings.min_cores, world.owned.service) == (7, 0.1, "hello")


def test_any_tag_and_digest_of_our_images_is_ours_and_of_former_ones() -> None:
    assert World((IMAGE.partition("@")[0] + ":2.0",)).owned is not None
    assert World(("new.example/queue-proxy",)).owned is None
    assert World(("new.example/queue-proxy", IMAGE)).owned is not None
    assert repository("host:5000/a/b:tag@sha256:00") == "host:5000/a/b"
    assert repository("host:5000/a/b") == "host:5000/a/b"


def test_whoever_asks_again_is_told_when_an_answer_may_be_another() -> None:
    world = World()
    key = ("default", "hello-00002")
    world.made["revisions"]["metadata"]["annotations"]["knative-sponge.dev/priority"] = "3"
    world.put("revisions")
    assert world.told == [key]
    assert world.owned.settings.priority == 3
    world.replica_sets.remove(("default", world.made["replicasets"]["metadata"]["name"]))
    world.put("replicasets")
    assert world.told == [key] * 3
    world.put("deployments")  # its status changes all the time
    world.put("revisions")
    assert world.told == [key] * 3
    world.limit(default="priority: 1")
    assert world.told == [*[key] * 3, ALL]
    world.limit(default="priority: 1")
    assert len(world.told) == 4


def test_limits_bound_what_a_revision_says(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.limit(default="max-cores: 2\nhead-room: 500m")
    assert (world.owned.settings.max_cores, world.owned.head_room) == (2.0, 0.5)
    world.limit(default="max-cores: lots")
    world.limit(default="max-cores: lots")
    assert world.owned.settings.max_cores == 2.0
    assert world.owners.faults.keys() == {"default"}
    assert caplog.text.count("limits of default: max-cores: expected") == 1


def admitted_with(world: World, reference: str, digest: str) -> float:
    """The cores that the pod was admitted with, where it carries these."""
    env = container(world.pod, "queue-proxy")["env"]
    env[:] = [one for one in env if not one["name"].startswith("SPONGE_CONTROL")]
    env += [
        {"name": "SPONGE_CONTROL_KEY", "value": reference},
        {"name": "SPONGE_CONTROL_TOKEN_SHA256", "value": digest},
    ]
    admitted: float = world.owned.admitted
    return admitted


def test_with_how_many_cores_a_pod_was_admitted_is_what_only_the_webhook_can_make() -> None:
    world = World()
    assert world.owned.admitted == 0.0
    control = world.ring.mint("default", sized_nonce(2.5, "r" * 32))
    other = world.ring.mint("elsewhere", sized_nonce(2.5, "r" * 32))
    assert control is not None
    assert other is not None
    assert admitted_with(world, control.reference, control.digest) == 2.5
    assert admitted_with(world, control.reference.replace(".2500-", ".9500-"), control.digest) == 0.0
    assert admitted_with(world, other.reference, other.digest) == 0.0


def test_whoever_asks_is_told_when_other_keys_may_prove_more_and_not_by_limits_once_it_is_closed() -> None:
    world = World()
    world.owners.all_changed()
    assert world.told == [ALL]
    world.owners.close()
    world.limit(default="priority: 1")
    assert world.told == [ALL]


def test_of_a_replica_set_only_what_proves_whose_it_is_is_held() -> None:
    kept = {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "1"}
    whole = {"metadata": kept | {"annotations": {"a": "b"}}, "spec": {"template": {}}}
    assert kept_of_owner(read_owner(json.dumps(whole).encode())) == {"metadata": kept}
