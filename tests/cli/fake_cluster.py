"""A cluster as `sponge top` and `sponge explain` meet it: a kubeconfig, a Lease, and leaders behind the pod proxy."""

from __future__ import annotations

import json
from pathlib import Path

from aiohttp import web

from knative_sponge.controller.kube.resource import LEASES
from knative_sponge.controller.reporting.rows import Overview
from tests.controller.apiserver import FakeApi

PROXIED = "/api/v1/namespaces/knative-sponge/pods/{}:9090/proxy/sponge/v1/revisions"


class FakeCluster(FakeApi):
    """pods: what each replica answers; an absent one does not, and one that has None does not lead. asked: paths, in
    order."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, Overview | None] = {}
        self.asked: list[str] = []

    async def __aenter__(self) -> FakeCluster:
        await super().__aenter__()
        return self

    def led_by(self, pod: str) -> None:
        """The Lease names this replica."""
        metadata = {"name": "autoscaler", "namespace": "knative-sponge"}
        self.put(LEASES, {"metadata": metadata, "spec": {"holderIdentity": pod}})

    def kubeconfig(self, folder: Path, context: str = "here") -> str:
        """A file that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
            "current-context": context,
        }
        (folder / "config").write_text(json.dumps(config))
        return str(folder / "config")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        for pod, overview in self.pods.items():
            if request.path == PROXIED.format(pod):
                if overview is None:
                    return web.json_response({"message": "this replica does not lead"}, status=503)
                return web.Response(body=overview.to_json(), content_type="application/json")
        return await super()._answer(request)
