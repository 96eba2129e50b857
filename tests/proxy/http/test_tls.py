"""The TLS port: the same data port behind a certificate that is changed while it serves."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.errors import SettingError
from knative_sponge.proxy.http.plain_answers import deliver, text
from knative_sponge.proxy.http.tls import Certificates
from knative_sponge.proxy.server import DataListener, Servers, build
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ProxySettings
from tests.proxy.harness import SETTINGS, Script, answering, model_server, ok, on_loop, until
from tests.proxy.tunnel_kit import MANY, OFFER, switching
from tests.proxy.wire import LOCAL, Client, Wire


@dataclass(frozen=True)
class Pair:
    certificate: bytes
    key: bytes

    def write(self, folder: Path) -> None:
        """As kubelet changes a Secret's files: each is another file afterwards."""
        for name, content in (("tls.crt", self.certificate), ("tls.key", self.key)):
            (folder / "new").write_bytes(content)
            (folder / "new").rename(folder / name)


def pair(name: str) -> Pair:
    """A self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Pair(certificate.public_bytes(pem), key.private_bytes(pem, *plain))


OLD, NEW = pair("old"), pair("new")


def settings(folder: Path, **more: Any) -> ProxySettings:
    return replace(SETTINGS, certificates=str(folder), **more)


@asynccontextmanager
async def tls_proxy(folder: Path, *scripts: Script, **more: Any) -> AsyncIterator[Servers]:
    OLD.write(folder)
    async with model_server(*scripts) as fake:
        given = settings(folder, user_port=fake.port, **more)
        servers = build(given, upstream=Upstream(LOCAL, fake.port))
        await servers.start()
        try:
            yield servers
        finally:
            await servers.stop()


@asynccontextmanager
async def tls_client(
    servers: Servers, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, host: str = ""
) -> AsyncIterator[Client]:
    """Without a host no name is asked for, as where a pod is asked by its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    assert servers.tls is not None
    reader, writer = await asyncio.open_connection(LOCAL, servers.tls.port, ssl=context, server_hostname=host)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def shown(one: Client) -> bytes:
    """The certificate a client was shown, as PEM."""
    der = one.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(der).encode()


@on_loop
async def test_the_data_port_is_served_over_tls_too(tmp_path: Path) -> None:
    async with tls_proxy(tmp_path, answering(ok(b"app"))) as servers, tls_client(servers) as one:
        assert (await one.get()).body == b"app"
        assert (await one.post(MANY)).body == b"app"
        probe = await one.get(b"/", b"User-Agent: Knative-Activator-Probe", b"K-Network-Probe: queue")
        assert probe.body == b"queue"
        assert shown(one) == OLD.certificate


@on_loop
async def test_without_certificates_there_is_no_tls_port(tmp_path: Path) -> None:
    OLD.write(tmp_path)
    (tmp_path / "tls.key").unlink()
    assert build(settings(tmp_path), upstream=Upstream(LOCAL, 1)).tls is None


@pytest.mark.parametrize("broken", [Pair(OLD.certificate, NEW.key), Pair(b"nothing", OLD.key)], ids=["other", "none"])
def test_certificates_that_cannot_be_used_end_the_start(tmp_path: Path, broken: Pair) -> None:
    broken.write(tmp_path)
    with pytest.raises(SettingError, match="SPONGE_CERTIFICATES"):
        build(settings(tmp_path), upstream=Upstream(LOCAL, 1))


@pytest.mark.parametrize(
    ("more", "version", "served"),
    [
        ({}, ssl.TLSVersion.TLSv1_2, False),
        ({"tls_min_version": "1.2"}, ssl.TLSVersion.TLSv1_2, True),
        ({"tls_min_version": "1.2", "tls_max_version": "1.2"}, ssl.TLSVersion.TLSv1_3, False),
    ],
)
@on_loop
async def test_only_the_versions_that_are_set_are_spoken(
    tmp_path: Path, more: dict[str, str], version: ssl.TLSVersion, served: bool
) -> None:
    async with tls_proxy(tmp_path, answering(ok()), **more) as servers:
        try:
            async with tls_client(servers, version) as one:
                assert (await one.get()).status == 200
                assert served
        except (ssl.SSLError, ConnectionError):
            assert not served


@pytest.mark.parametrize("host", ["", "model.example"], ids=["by address", "by name"])
@on_loop
async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(Certificates, "check_s", 0.02)
    async with tls_proxy(tmp_path, answering(ok())) as servers, tls_client(servers, host=host) as first:
        assert (await first.get()).status == 200
        NEW.write(tmp_path)
        while True:
            async with tls_client(servers, host=host) as other:
                assert (await other.get()).status == 200
                if shown(other) == NEW.certificate:
                    break
        assert (await first.get()).status == 200
        assert shown(first) == OLD.certificate


@on_loop
async def test_a_new_certificate_that_is_broken_leaves_the_old_one_in_use_until_a_good_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Certificates, "check_s", 0.02)
    async with tls_proxy(tmp_path, answering(ok())) as servers:
        with caplog.at_level(logging.WARNING):
            Pair(NEW.certificate, OLD.key).write(tmp_path)
            await until(lambda: "cannot be used" in caplog.text)
            async with tls_client(servers) as one:
                assert (await one.get()).status == 200
                assert shown(one) == OLD.certificate
        (tmp_path / "tls.crt").unlink()
        await asyncio.sleep(0.1)
        NEW.write(tmp_path)
        while True:
            async with tls_client(servers) as one:
                if shown(one) == NEW.certificate:
                    break


@on_loop
async def test_the_application_is_told_that_it_is_https(tmp_path: Path) -> None:
    async def scheme(scope: Scope, receive: Receive, send: Send) -> None:
        await deliver(text(200, scope["scheme"].encode()), send)

    OLD.write(tmp_path)
    listener = DataListener(scheme, LOCAL, 0, grace_s=1, certificates=Certificates(settings(tmp_path)))
    await listener.start()
    servers = build(SETTINGS, upstream=Upstream(LOCAL, 1))
    servers.tls = listener
    async with tls_client(servers) as one:
        assert (await one.get()).body == b"https"
    await listener.stop()


@on_loop
async def test_another_protocol_is_carried_over_tls_too(tmp_path: Path) -> None:
    async def says(wire: Wire) -> None:
        await wire.send(await wire.exactly(len(MANY)) + b"bye")

    async with tls_proxy(tmp_path, switching(then=says)) as servers, tls_client(servers) as one:
        await one.send(OFFER + b"\r\n" + MANY)
        assert (await one.head()).startswith(b"HTTP/1.1 101 ")
        assert await one.exactly(len(MANY) + 3) == MANY + b"bye"


@on_loop
async def test_a_client_that_leaves_over_tls_ends_its_request(tmp_path: Path) -> None:
    wires: list[Wire] = []

    async def waits(wire: Wire) -> None:
        await wire.head()
        wires.append(wire)
        await wire.gone()

    async with tls_proxy(tmp_path, waits) as servers, tls_client(servers) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(wires))
        one.close()
        await until(lambda: wires[0].over)


@on_loop
async def test_an_answer_that_overtakes_its_request_arrives_over_tls(tmp_path: Path) -> None:
    async def refuses(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await wire.gone()

    async with tls_proxy(tmp_path, refuses) as servers, tls_client(servers) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart")
        assert (await one.reply("POST")).status == 413
