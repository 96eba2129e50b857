"""The certificates and kubeconfigs that the cluster's components know each other by. Pure keys and text; starts nothing."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=30)
_USES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


class Authority:
    """A certificate authority whose files `<name>.crt`, `<name>.key` lie in `directory`, beside those it signs."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject(name)
        certificate = (
            _builder(self._subject, self._subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        _write(directory / f"{name}.crt", self.pem)
        _write(directory / f"{name}.key", _pem(self._key))

    def leaf(
        self,
        file: str,
        common_name: str,
        *,
        organization: str | None = None,
        uses: Sequence[str] = ("client",),
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> tuple[bytes, bytes]:
        """Sign a certificate; its PEM and its key's are also written to `<file>.crt` and `<file>.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_subject(common_name, organization), self._subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USES[use] for use in uses]), critical=False)
        )
        alternatives = [x509.DNSName(name) for name in names]
        if alternatives or addresses:
            found = [*alternatives, *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
            builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        _write(self._directory / f"{file}.crt", certificate)
        _write(self._directory / f"{file}.key", _pem(key))
        return certificate, _pem(key)

    def kubeconfig(self, file: Path, server: str, pair: tuple[bytes, bytes]) -> None:
        """Write a kubeconfig for the user that `pair` (certificate, key) names."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "bare", "cluster": {"server": server, "certificate-authority-data": _base64(self.pem)}}
            ],
            "users": [
                {
                    "name": "user",
                    "user": {"client-certificate-data": _base64(pair[0]), "client-key-data": _base64(pair[1])},
                }
            ],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "user"}}],
            "current-context": "bare",
        }
        _write(file, json.dumps(config).encode())


def service_account_keys(directory: Path) -> None:
    """`sa.key` and `sa.pub`, with which tokens of service accounts are signed and checked."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(directory / "sa.key", _pem(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write(directory / "sa.pub", public)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _subject(common_name: str, organization: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _write(file: Path, data: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(data)
