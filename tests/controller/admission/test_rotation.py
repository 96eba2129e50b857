"""The Secret and the trust in it are kept, whatever else happens to them."""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificates

from knative_sponge.controller.admission.certificate import AUTHORITY_LIFETIME_S, CertificateError, make
from knative_sponge.controller.admission.rotation import CHECK_S, Rotation, SecretSource
from knative_sponge.errors import KubeConflict
from tests.controller.admission.fake_store import MUTATING, SECRET, SETTINGS, VALIDATING, FakeStore, failing
from tests.virtual_time import run_virtual

START = 1_800_000_000.0
LIFETIME_S = SETTINGS.cert_lifetime_s


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        run_virtual(test)

    return run


def wall() -> float:
    """A wall clock that goes with the loop's."""
    return START + asyncio.get_running_loop().time()


def rotation(store: FakeStore, clock: Callable[[], float]) -> Rotation:
    return Rotation(store, SETTINGS, now=clock)


@virtual
async def test_the_first_leader_makes_the_secret_and_has_it_trusted() -> None:
    store = FakeStore()
    await rotation(store, Clock()).check()
    assert store.bundles == {store.certificates.authorities}
    assert store.objects[SECRET]["type"] == "Opaque"
    for key, count in ((MUTATING, 2), (VALIDATING, 1)):
        webhooks = store.objects[key]["webhooks"]
        assert len(webhooks) == count
        assert all(one["clientConfig"]["service"]["name"] == "webhook" for one in webhooks)


@virtual
async def test_a_second_look_only_reads() -> None:
    store = FakeStore()
    keeper = rotation(store, Clock())
    await keeper.check()
    store.calls.clear()
    await keeper.check()
    assert store.writes == []
    assert len(store.calls) == 3


@virtual
async def test_what_another_leader_made_is_kept() -> None:
    store = FakeStore()
    await rotation(store, Clock()).check()
    made = store.certificates
    await rotation(store, Clock()).check()
    assert store.certificates == made


@virtual
async def test_trust_that_was_overwritten_is_put_right_where_it_was() -> None:
    store = FakeStore()
    keeper = rotation(store, Clock())
    await keeper.check()
    store.objects[VALIDATING]["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(b"else").decode()
    del store.objects[MUTATING]["webhooks"][1]["clientConfig"]["caBundle"]
    store.calls.clear()
    await keeper.check()
    assert store.bundles == {store.certificates.authorities}
    assert [verb for verb, _ in store.writes] == ["patch", "patch"]


@virtual
async def test_a_missing_configuration_does_not_keep_the_other_from_its_trust() -> None:
    store = FakeStore()
    del store.objects[MUTATING]
    await rotation(store, Clock()).check()
    (webhook,) = store.objects[VALIDATING]["webhooks"]
    assert base64.b64decode(webhook["clientConfig"]["caBundle"]) == store.certificates.authorities


@virtual
async def test_the_serving_certificate_is_renewed_in_time() -> None:
    store, clock = FakeStore(), Clock()
    keeper = rotation(store, clock)
    await keeper.check()
    first = store.certificates
    clock.now += LIFETIME_S * (1 - SETTINGS.cert_renew_share) + 1
    await keeper.check()
    renewed = store.certificates
    assert renewed.serving != first.serving
    assert renewed.authorities == first.authorities
    assert store.bundles == {first.authorities}


@virtual
async def test_a_new_authority_is_trusted_everywhere_before_it_signs() -> None:
    store, clock = FakeStore(), Clock()
    keeper = rotation(store, clock)
    await keeper.check()
    old = store.certificates
    clock.now += AUTHORITY_LIFETIME_S * 0.7
    await keeper.check()  # the old serving certificate ended long ago: that first
    serving = store.certificates.serving
    assert serving != old.serving
    await keeper.check()
    assert store.certificates.serving == serving
    assert store.certificates.authorities != old.authorities
    assert store.certificates.authorities.endswith(old.authorities)
    assert store.bundles == {store.certificates.authorities}


@virtual
async def test_no_certificate_of_a_new_authority_is_shown_in_the_first_moments_of_its_trust() -> None:
    store, clock = FakeStore(), Clock()
    keeper = rotation(store, clock)
    await keeper.check()
    serving = store.certificates.serving
    clock.now += LIFETIME_S * 0.9
    for webhook in store.objects[MUTATING]["webhooks"]:
        webhook["clientConfig"]["caBundle"] = ""
    fresh = rotation(store, clock)  # a new leader knows nothing of the one before
    await fresh.check()
    assert store.certificates.serving == serving
    clock.now += CHECK_S - 1
    await fresh.check()
    assert store.certificates.serving == serving
    clock.now += 1
    await fresh.check()
    assert store.certificates.serving != serving


@virtual
async def test_an_authority_and_a_certificate_that_are_due_together_are_renewed_one_after_the_other() -> None:
    store, clock = FakeStore(), Clock()
    keeper = rotation(store, clock)
    await keeper.check()
    clock.now += AUTHORITY_LIFETIME_S * 0.7 - LIFETIME_S * 0.9
    await keeper.check()  # ended
    serving = store.certificates.serving
    clock.now += LIFETIME_S * 0.9
    for _ in range(3):
        await keeper.check()
        assert store.certificates.serving == serving
    assert len(load_pem_x509_certificates(store.certificates.authorities)) == 2
    clock.now += CHECK_S
    await keeper.check()
    assert store.certificates.serving != serving


@virtual
async def test_a_secret_that_cannot_be_used_is_made_anew_and_its_other_entries_stay() -> None:
    store = FakeStore()
    keeper = rotation(store, Clock())
    await keeper.check()
    broken = store.certificates
    store.objects[SECRET]["data"] |= {"tls.crt": base64.b64encode(b"nonsense").decode(), "note": "bWluZQ=="}
    await keeper.check()
    assert store.certificates.authorities != broken.authorities
    assert store.bundles == {store.certificates.authorities}
    assert store.objects[SECRET]["data"]["note"] == "bWluZQ=="


@virtual
async def test_of_two_leaders_that_make_the_secret_one_wins_and_both_agree() -> None:
    store = FakeStore()
    one, two = rotation(store, Clock()), rotation(store, Clock())
    results = await asyncio.gather(one.check(), two.check(), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [KubeConflict]
    await asyncio.gather(one.check(), two.check())
    assert store.bundles == {store.certificates.authorities}


@virtual
async def test_a_renewal_that_lost_a_race_takes_the_winner() -> None:
    store, clock = FakeStore(), Clock()
    await rotation(store, clock).check()
    clock.now += LIFETIME_S
    one, two = rotation(store, clock), rotation(store, clock)
    results = await asyncio.gather(one.check(), two.check(), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [KubeConflict]
    winner = store.certificates
    await one.check()
    await two.check()
    assert store.certificates == winner


@virtual
async def test_it_goes_on_after_failures_and_checks_again_by_itself() -> None:
    store = FakeStore()
    store.before = failing(5)
    running = asyncio.create_task(rotation(store, wall).run())
    await asyncio.sleep(CHECK_S)
    assert store.bundles == {store.certificates.authorities}
    store.objects[VALIDATING]["webhooks"][0]["clientConfig"].clear()
    await asyncio.sleep(CHECK_S + 1)
    assert store.bundles == {store.certificates.authorities}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_no_key_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def checks() -> None:
        store = FakeStore()
        clock = Clock()
        keeper = rotation(store, clock)
        await keeper.check()
        clock.now += AUTHORITY_LIFETIME_S * 0.7
        await keeper.check()
        store.objects[SECRET]["data"]["ca.key"] = "bm90aGluZw=="
        await keeper.check()

    with caplog.at_level(logging.DEBUG):
        run_virtual(checks)
    assert "renewed" in caplog.text
    assert "making all anew" in caplog.text
    assert "BEGIN" not in caplog.text
    assert "LS0t" not in caplog.text  # base64 of the dashes that PEM begins with


@virtual
async def test_a_follower_waits_for_the_secret_and_then_reads_it() -> None:
    store = FakeStore()
    source = SecretSource(store, SETTINGS)
    assert await source.read() is None
    await rotation(store, Clock()).check()
    assert await source.read() == store.certificates


@virtual
async def test_a_follower_tells_a_broken_secret_apart_from_none() -> None:
    store = FakeStore()
    made = make(["webhook"], LIFETIME_S, START)
    store.objects[SECRET] = {"data": {name: value.decode() for name, value in made.to_secret().items()}}
    with pytest.raises(CertificateError):
        await SecretSource(store, SETTINGS).read()


def tls_secret(certificate: bytes, key: bytes) -> dict[str, Any]:
    data = {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate}
    return {
        "metadata": {"name": "webhook-certs", "resourceVersion": "1"},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


@virtual
async def test_certificates_that_somebody_else_keeps_are_read_without_the_authoritys_key() -> None:
    store = FakeStore()
    made, other = (make(("webhook.knative-sponge.svc",), 3600.0, 1e9) for _ in range(2))
    source = SecretSource(store, replace(SETTINGS, cert_source="external"))
    assert await source.read() is None
    store.objects[SECRET] = tls_secret(made.serving, made.key)
    found = await source.read()
    assert found is not None
    assert (found.serving, found.key, found.authority_key) == (made.serving, made.key, b"")
    for certificate, key in ((made.serving, other.key), (b"x", made.key), (made.serving, b"x")):
        store.objects[SECRET] = tls_secret(certificate, key)
        with pytest.raises(CertificateError):
            await source.read()


def test_what_nobody_expected_in_the_secret_does_not_end_the_leader(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        store = FakeStore()
        kept = rotation(store, wall)
        failures = [RuntimeError("a defect")]

        def before(verb: str, plural: str) -> None:
            if failures:
                raise failures.pop()

        store.before = before
        running = asyncio.create_task(kept.run())
        await asyncio.sleep(2 * CHECK_S)
        assert SECRET in store.objects
        running.cancel()

    run_virtual(body)
    assert caplog.text.count("certificates: webhook-certs cannot be handled") == 1
