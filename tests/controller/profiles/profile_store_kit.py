"""A store of profiles and its keeper before a fake API server, and what proxies say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.kube.resource import PROFILES
from knative_sponge.controller.profiles.profile import image_profile, to_text
from knative_sponge.controller.profiles.store import NAME, ProfileKeeper, ProfileStore
from knative_sponge.wire.demand import DemandLine
from tests.controller.apiserver import FakeApi
from tests.controller.profile_kit import document, learned

SPACE = "knative-sponge"
NOW = 1_800_000_000.0


@asynccontextmanager
async def stage() -> AsyncIterator[tuple[FakeApi, ProfileStore, ProfileKeeper]]:
    async with FakeApi() as api:
        kube = Kube.at(api.url)
        store = ProfileStore(kube, SPACE)
        try:
            yield api, store, ProfileKeeper(kube, store, SPACE)
        finally:
            await kube.close()


def stored(api: FakeApi) -> dict[str, str]:
    found = api.get(PROFILES, NAME, SPACE)
    data: dict[str, str] = {} if found is None else found["data"]
    return data


def put(api: FakeApi, data: dict[str, str]) -> None:
    api.put(PROFILES, {"metadata": {"name": NAME, "namespace": SPACE}, "data": data})


def line(seen_s: float = NOW, cores: float | None = 1.0, **model: Any) -> str:
    return to_text(image_profile(document(**model), cores, seen_s))


def said(samples: int = 300, *, cores: float = 1.0, rate: float = 5.0, factor: float = 1.0) -> DemandLine:
    """What a proxy says that has learned `document(samples, factor=factor)`."""
    params = learned(samples, factor=factor).params
    numbers = (params.gamma, params.delta, params.epsilon, params.eta)
    return DemandLine(cores=cores, want=cores, rate=rate, params=numbers, samples=samples)
