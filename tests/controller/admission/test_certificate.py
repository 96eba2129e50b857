"""The webhook's certificates, judged by OpenSSL itself and by the clock that is passed in."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from knative_sponge.controller.admission.certificate import (
    AUTHORITY_LIFETIME_S,
    CertificateError,
    Certificates,
    Due,
    dns_names,
    due,
    expires_at,
    make,
    renew,
)

NAMES = dns_names("webhook", "knative-sponge")
DAY_S = 86400.0
LIFETIME_S = 90 * DAY_S
NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC).timestamp()
SHARE = 0.33


def trusts(authorities: bytes, certificates: Certificates, now: float, name: str = NAMES[0]) -> bool:
    """Whether a strict verifier takes the serving certificate at that time."""
    store = x509.verification.Store(x509.load_pem_x509_certificates(authorities))
    verifier = (
        x509.verification.PolicyBuilder()
        .store(store)
        .time(dt.datetime.fromtimestamp(now, dt.UTC))
        .build_server_verifier(x509.DNSName(name))
    )
    try:
        verifier.verify(x509.load_pem_x509_certificate(certificates.serving), [])
    except x509.verification.VerificationError:
        return False
    return True


def due_at(certificates: Certificates, now: float) -> Due:
    return due(certificates, NAMES, SHARE, now)


def test_the_certificate_is_for_the_names_of_the_webhook_service() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    assert NAMES == ("webhook.knative-sponge.svc", "webhook.knative-sponge.svc.cluster.local")
    assert all(trusts(made.authorities, made, NOW, name) for name in NAMES)
    assert not trusts(made.authorities, made, NOW, "webhook.other.svc")


def test_it_is_small_and_serves_nothing_else() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    serving = x509.load_pem_x509_certificate(made.serving)
    key = serving.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    uses = serving.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert serving.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


@pytest.mark.parametrize("offset_s", [-3599.0, LIFETIME_S - 1])
def test_it_is_valid_for_its_lifetime_and_for_a_clock_an_hour_behind(offset_s: float) -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    assert trusts(made.authorities, made, NOW + offset_s)
    assert expires_at(made) == NOW + LIFETIME_S


@pytest.mark.parametrize("offset_s", [-3700.0, LIFETIME_S + 1])
def test_it_is_not_valid_before_or_after(offset_s: float) -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    assert not trusts(made.authorities, made, NOW + offset_s)


def test_the_secret_gives_back_what_was_put_in() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    assert sorted(made.to_secret()) == ["ca.crt", "ca.key", "tls.crt", "tls.key"]
    assert Certificates.from_secret(made.to_secret()) == made


def test_keys_are_not_shown() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    assert "PRIVATE" not in repr(made)


@pytest.mark.parametrize("lifetime_s", [60.0, LIFETIME_S])
def test_it_is_renewed_when_its_last_third_begins(lifetime_s: float) -> None:
    made = make(NAMES, lifetime_s, NOW)
    assert due_at(made, NOW) is Due.NOTHING
    assert due_at(made, NOW + (1 - SHARE) * lifetime_s - 1) is Due.NOTHING
    assert due_at(made, NOW + (1 - SHARE) * lifetime_s + 1) is Due.SERVING
    assert due_at(made, NOW + lifetime_s) is Due.SERVING_NOW


def test_it_is_renewed_for_other_names() -> None:
    made = make(dns_names("webhook", "elsewhere"), LIFETIME_S, NOW)
    assert due_at(made, NOW) is Due.SERVING
    assert trusts(made.authorities, renew(made, Due.SERVING, NAMES, LIFETIME_S, NOW), NOW)


def test_a_renewed_certificate_is_trusted_by_who_trusted_the_last() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    later = NOW + 80 * DAY_S
    renewed = renew(made, Due.SERVING, NAMES, LIFETIME_S, later)
    assert renewed.serving != made.serving
    assert renewed.key != made.key
    assert renewed.authorities == made.authorities
    assert trusts(made.authorities, renewed, later)
    assert expires_at(renewed) == later + LIFETIME_S


def test_an_authority_is_renewed_without_a_moment_of_distrust() -> None:
    """Whoever knows the old or the new authorities trusts whichever certificate is shown, in every order of arrival."""
    now = NOW + AUTHORITY_LIFETIME_S * 0.7
    old = renew(make(NAMES, LIFETIME_S, NOW), Due.SERVING, NAMES, LIFETIME_S, now)
    assert due_at(old, now) is Due.AUTHORITY
    between = renew(old, Due.AUTHORITY, NAMES, LIFETIME_S, now)
    assert between.serving == old.serving
    assert trusts(old.authorities, between, now)
    assert trusts(between.authorities, between, now)
    assert Certificates.from_secret(between.to_secret()) == between
    assert due_at(between, now) is Due.NOTHING
    now += 80 * DAY_S
    assert due_at(between, now) is Due.SERVING
    new = renew(between, Due.SERVING, NAMES, LIFETIME_S, now)
    assert trusts(between.authorities, between, now)
    assert trusts(between.authorities, new, now)
    assert not trusts(old.authorities, new, now)
    assert due_at(new, now) is Due.NOTHING


def test_openssl_takes_the_new_certificate_from_two_authorities() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    between = renew(made, Due.AUTHORITY, NAMES, LIFETIME_S, NOW)
    context = ssl.create_default_context(cadata=between.authorities.decode())
    assert len(context.get_ca_certs()) == 2
    assert len({str(one["subject"]) for one in context.get_ca_certs()}) == 2


def test_an_authority_that_ended_is_forgotten() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    between = renew(made, Due.AUTHORITY, NAMES, LIFETIME_S, NOW + AUTHORITY_LIFETIME_S - DAY_S)
    assert len(x509.load_pem_x509_certificates(between.authorities)) == 2
    after = renew(between, Due.AUTHORITY, NAMES, LIFETIME_S, NOW + AUTHORITY_LIFETIME_S + DAY_S)
    assert len(x509.load_pem_x509_certificates(after.authorities)) == 2  # the newest two


def test_all_is_made_anew_when_the_authority_ended() -> None:
    made = make(NAMES, LIFETIME_S, NOW)
    now = NOW + AUTHORITY_LIFETIME_S + 1
    assert due_at(made, now) is Due.ALL
    anew = renew(made, Due.ALL, NAMES, LIFETIME_S, now)
    assert trusts(anew.authorities, anew, now)
    assert not set(x509.load_pem_x509_certificates(anew.authorities)) & set(
        x509.load_pem_x509_certificates(made.authorities)
    )


def test_a_certificate_does_not_outlive_its_authority() -> None:
    made = make(NAMES, 2 * AUTHORITY_LIFETIME_S, NOW)
    assert expires_at(made) == NOW + AUTHORITY_LIFETIME_S


MADE = make(NAMES, LIFETIME_S, NOW)
OTHER = make(NAMES, LIFETIME_S, NOW)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        pytest.param({}, "ca.crt is missing", id="empty"),
        pytest.param(
            {name: value for name, value in MADE.to_secret().items() if name != "tls.key"},
            "tls.key is missing",
            id="one",
        ),
        pytest.param(dict.fromkeys(MADE.to_secret(), b"x"), "not PEM", id="not PEM"),
        pytest.param(replace(MADE, key=OTHER.key).to_secret(), "tls.key is not the key of tls.crt", id="wrong key"),
        pytest.param(
            replace(MADE, authority_key=OTHER.authority_key).to_secret(), "ca.key is not the key", id="wrong ca key"
        ),
        pytest.param(
            replace(MADE, serving=OTHER.serving, key=OTHER.key).to_secret(), "signed by no authority", id="wrong pair"
        ),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_without_showing_it(stored: dict[str, bytes], says: str) -> None:
    with pytest.raises(CertificateError, match=says) as caught:
        Certificates.from_secret(stored)
    assert "BEGIN" not in str(caught.value)
