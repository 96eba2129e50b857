"""Who the cluster's components take each other for."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from e2e.cluster.bare import config
from e2e.cluster.bare.certificates import Authority
from e2e.cluster.bare.network import API_IP, NODE_IP
from e2e.cluster.bare.node import Node
from tests.e2e.recorder import Recorder


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with its certificates."""
    made = tmp_path_factory.mktemp("run")
    Node(made, {}, Recorder()).certificates()
    return made


def read(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "pki" / f"{name}.crt").read_bytes())


def subject(certificate: x509.Certificate) -> tuple[str | bytes, list[str | bytes]]:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return name.value, [group.value for group in groups]


def uses(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize(
    ("file", "name", "groups"),
    [
        ("admin", "admin", ["system:masters"]),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"]),
        ("controller-manager", "system:kube-controller-manager", []),
        ("scheduler", "system:kube-scheduler", []),
        ("proxy", "system:kube-proxy", []),
        ("kubelet", "system:node:node1", ["system:nodes"]),
    ],
)
def test_everybody_is_who_the_api_server_takes_them_for(
    directory: Path, file: str, name: str, groups: list[str]
) -> None:
    certificate = read(directory, file)
    assert subject(certificate) == (name, groups)
    assert ExtendedKeyUsageOID.CLIENT_AUTH in uses(certificate)
    certificate.verify_directly_issued_by(read(directory, "ca"))


def test_the_api_server_is_trusted_under_every_name_it_is_called(directory: Path) -> None:
    certificate = read(directory, "apiserver")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"kubernetes.default.svc", "kubernetes.default.svc.cluster.local"} <= set(
        names.get_values_for_type(x509.DNSName)
    )
    assert {NODE_IP, API_IP} <= {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert uses(certificate) == {ExtendedKeyUsageOID.SERVER_AUTH}


def test_one_authority_does_not_vouch_for_the_others_clients(directory: Path) -> None:
    front = read(directory, "front-proxy-client")
    front.verify_directly_issued_by(read(directory, "front-proxy-ca"))
    with pytest.raises((ValueError, InvalidSignature)):
        front.verify_directly_issued_by(read(directory, "ca"))


def test_a_kubeconfig_holds_a_user_and_the_authority_of_the_server(directory: Path) -> None:
    found = json.loads((directory / "admin.kubeconfig").read_text())
    (cluster,), (user,) = found["clusters"], found["users"]
    assert cluster["cluster"]["server"] == config.SERVER
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == (
        (directory / "pki" / "ca.crt").read_bytes()
    )
    certificate = x509.load_pem_x509_certificate(base64.b64decode(user["user"]["client-certificate-data"]))
    key = serialization.load_pem_private_key(base64.b64decode(user["user"]["client-key-data"]), None)
    assert subject(certificate)[0] == "admin"
    assert certificate.public_key() == key.public_key()


def test_an_authority_may_sign_and_a_leaf_may_not(directory: Path) -> None:
    for name, authority in (("ca", True), ("front-proxy-ca", True), ("admin", False), ("apiserver", False)):
        found = read(directory, name).extensions.get_extension_for_class(x509.BasicConstraints)
        assert (found.critical, found.value.ca) == (True, authority)


def test_nobody_else_can_read_a_key(directory: Path, tmp_path: Path) -> None:
    Authority(tmp_path, "other").leaf("leaf", "leaf")
    keys = [*(directory / "pki").glob("*.key"), *directory.glob("*.kubeconfig"), *tmp_path.glob("*.key")]
    assert len(keys) > 10
    assert {path.stat().st_mode & 0o077 for path in keys} == {0}


def test_every_file_that_a_component_is_told_of_is_there(directory: Path) -> None:
    pki = directory / "pki"
    told = {**config.api_server(pki), **config.controller_manager(pki)}
    files = [value for value in told.values() if isinstance(value, Path)]
    assert len(files) > 10
    assert [path for path in files if not path.is_file()] == []
