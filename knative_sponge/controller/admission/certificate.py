"""The webhook's certificates: made, read, renewed when due. Pure: PEM in, PEM out; time is a parameter (Unix seconds).

An authority of our own signs the serving certificate, and the API server trusts the authorities in `ca.crt`. Rotation has no
gap: a new authority is put before the old one, which stays trusted until it expires. The serving certificate is left as it is
then. Only a later renewal signs with the new authority, when every API server has known it for long.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from knative_sponge.errors import SpongeError

AUTHORITY_LIFETIME_S: Final = 10 * 365 * 86400.0
_SKEW_S: Final = 3600.0
"""A certificate is valid from an hour before it is made: the API server's clock may be behind."""


class CertificateError(SpongeError):
    """Stored certificates cannot be used. The text says why, and shows none of their content."""


class Due(StrEnum):
    """Which certificate has to be renewed first."""

    NOTHING = "nothing"
    SERVING = "serving"
    AUTHORITY = "authority"
    SERVING_NOW = "serving-now"
    """The serving certificate has expired."""
    ALL = "all"
    """The signing authority has expired: nothing is trusted any more, and all is made anew."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """The content of the Secret, as PEM.

    authorities: the trusted ones, the signing one first (`ca.crt`). authority_key: of the signing one (`ca.key`). serving, key:
    the webhook's certificate (`tls.crt`) and its key (`tls.key`).
    """

    authorities: bytes
    authority_key: bytes = field(repr=False)
    serving: bytes
    key: bytes = field(repr=False)

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Certificates:
        """From the Secret's entries. Raises CertificateError when an entry is missing, unreadable or fits no other."""
        try:
            found = cls(**{name: data[entry] for name, entry in _ENTRIES.items()})
        except KeyError as error:
            raise CertificateError(f"{error.args[0]} is missing") from error
        try:
            authorities = x509.load_pem_x509_certificates(found.authorities)
            serving = x509.load_pem_x509_certificate(found.serving)
            pairs = ((authorities[0], found.authority_key, "ca"), (serving, found.key, "tls"))
            for certificate, key, name in pairs:
                if _load_key(key).public_key() != certificate.public_key():
                    raise CertificateError(f"{name}.key is not the key of {name}.crt")
        except (ValueError, TypeError) as error:
            raise CertificateError("not PEM of certificates and their keys") from error
        if not any(_has_signed(authority, serving) for authority in authorities):
            raise CertificateError("tls.crt is signed by no authority in ca.crt")
        return found

    @classmethod
    def from_serving(cls, data: Mapping[str, bytes]) -> Certificates:
        """From a Secret of type `kubernetes.io/tls`, which somebody else keeps: its authorities are not known here. Raises
        CertificateError as `from_secret` does."""
        try:
            serving, key = data["tls.crt"], data["tls.key"]
            public = serialization.load_pem_private_key(key, password=None).public_key()
            if public != x509.load_pem_x509_certificate(serving).public_key():
                raise CertificateError("tls.key is not the key of tls.crt")
        except KeyError as error:
            raise CertificateError(f"{error.args[0]} is missing") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError("not PEM of certificates and their keys") from error
        return cls(authorities=b"", authority_key=b"", serving=serving, key=key)

    def to_secret(self) -> dict[str, bytes]:
        """The Secret's entries."""
        return {entry: getattr(self, name) for name, entry in _ENTRIES.items()}


_ENTRIES: Final = {"authorities": "ca.crt", "authority_key": "ca.key", "serving": "tls.crt", "key": "tls.key"}


def dns_names(service: str, namespace: str) -> tuple[str, ...]:
    """The names under which the API server, or a person who debugs, reaches a Service."""
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local")


def make(names: Sequence[str], lifetime_s: float, now: float) -> Certificates:
    """A new authority and a serving certificate for `names`, valid for `lifetime_s` seconds or as long as its authority."""
    authority, authority_key = _make_authority(now)
    serving, key = _make_serving(names, lifetime_s, now, x509.load_pem_x509_certificate(authority), authority_key)
    return Certificates(authority, authority_key, serving, key)


def due(certificates: Certificates, names: Sequence[str], share: float, now: float) -> Due:
    """What has to be renewed first. Due is what has expired, has at most `share` of its lifetime left, or has other names."""
    serving = x509.load_pem_x509_certificate(certificates.serving)
    authorities = x509.load_pem_x509_certificates(certificates.authorities)
    if _left_s(authorities[0], now) <= 0:
        return Due.ALL
    if _left_s(serving, now) <= 0:
        return Due.SERVING_NOW
    if _is_old(authorities[0], share, now):
        return Due.AUTHORITY
    if _is_old(serving, share, now) or _names_of(serving) != set(names):
        return Due.SERVING
    return Due.NOTHING


def renew(certificates: Certificates, what: Due, names: Sequence[str], lifetime_s: float, now: float) -> Certificates:
    """The certificates after the renewal that `what` names. A new authority is put before those that have not expired."""
    match what:
        case Due.ALL:
            return make(names, lifetime_s, now)
        case Due.AUTHORITY:
            authority, authority_key = _make_authority(now)
            trusted = [
                one for one in x509.load_pem_x509_certificates(certificates.authorities) if _left_s(one, now) > 0
            ]
            return replace(
                certificates, authorities=b"".join([authority, *map(_pem, trusted)]), authority_key=authority_key
            )
        case Due.SERVING | Due.SERVING_NOW:
            authorities = x509.load_pem_x509_certificates(certificates.authorities)
            serving, key = _make_serving(names, lifetime_s, now, authorities[0], certificates.authority_key)
            return replace(certificates, serving=serving, key=key)
        case Due.NOTHING:
            return certificates


def expires_at(certificates: Certificates) -> float:
    """When the serving certificate expires, in Unix seconds."""
    return x509.load_pem_x509_certificate(certificates.serving).not_valid_after_utc.timestamp()


def _make_authority(now: float) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    # Verifiers look for an issuer by its name first. The serial number makes the name unique.
    serial = x509.random_serial_number()
    name = _name(f"knative-sponge webhook authority {serial:x}"[:64])
    public = key.public_key()
    certificate = (
        _builder(name, name, public, serial, now, AUTHORITY_LIFETIME_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _make_serving(
    names: Sequence[str], lifetime_s: float, now: float, authority: x509.Certificate, authority_key: bytes
) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    public, signer = key.public_key(), _load_key(authority_key)
    serial = x509.random_serial_number()
    lifetime_s = min(lifetime_s, _left_s(authority, now))
    # A common name has 64 characters at most. Verifiers use the alternative names only.
    certificate = (
        _builder(_name(names[0][:64]), authority.subject, public, serial, now, lifetime_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, serial: int, now: float, lifetime_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_utc(now - _SKEW_S))
        .not_valid_after(_utc(now + lifetime_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_old(certificate: x509.Certificate, share: float, now: float) -> bool:
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return _left_s(certificate, now) <= share * (lifetime.total_seconds() - _SKEW_S)


def _left_s(certificate: x509.Certificate, now: float) -> float:
    return certificate.not_valid_after_utc.timestamp() - now


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return set(names.get_values_for_type(x509.DNSName))


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a key of an elliptic curve")
    return key


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
