"""Caches whose keys are strangers' texts: a few short ones, whatever they send."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

import knative_sponge
from knative_sponge.proxy.knative.server_readiness import Readiness
from knative_sponge.settings import Probe
from tests.proxy.harness import answering, model_server, on_loop
from tests.proxy.wire import LOCAL

KNOWN = {
    "knative_sponge.core.quantity",  # of texts whose length is bounded (tests/core/test_quantity.py)
    "knative_sponge.controller.cluster.pod",
    "knative_sponge.codec.json.text",  # of decoders, by numbers of rows of one call and by names of our own
}


def test_every_cache_of_the_product_is_known() -> None:
    found = set()
    for module in pkgutil.walk_packages(knative_sponge.__path__, "knative_sponge."):
        if module.name.endswith("__main__"):
            continue
        try:
            content = importlib.import_module(module.name)
        except ImportError:  # of an extra that is not installed
            continue
        for thing in vars(content).values():
            if hasattr(thing, "cache_info") and thing.__module__.startswith("knative_sponge"):
                found.add(thing.__module__)
    assert found <= KNOWN


@pytest.mark.parametrize("prefix", [b"/", b"http://127.0.0.1:1/", b"x"])
@on_loop
async def test_long_redirects_of_a_model_server_are_not_kept(prefix: bytes) -> None:
    urlsplit.cache_clear()  # type: ignore[attr-defined]
    away = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + prefix + b"a" * 50_000 + b"\r\n\r\n"
    async with model_server(answering(away)) as fake:
        probe = replace(Probe(LOCAL, 0, period_s=10.0, timeout_s=5.0), port=fake.port, path="/ready")
        assert not await Readiness([probe]).check()
        assert len(fake.seen) == 1
    assert urlsplit.cache_info().currsize <= 1  # type: ignore[attr-defined]
