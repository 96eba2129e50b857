"""Kubelets are asked over TLS that is verified, with the token of now; what they answer may be anything."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from knative_sponge.controller.sizing import memory_usage as kubelet
from knative_sponge.controller.sizing.memory_usage import Kubelets, working_sets
from knative_sponge.errors import KubeError, KubeUnreachable
from tests.controller.revision_kit import run

LOCAL = "127.0.0.1"
TEXT = """# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes
# TYPE container_memory_working_set_bytes gauge
container_cpu_usage_seconds_total{container="user-container",namespace="models",pod="ocr-1"} 4.710169 1700000000000
container_memory_working_set_bytes{container="queue-proxy",namespace="models",pod="ocr-1"} 2.5165824e+07 1700000000000
container_memory_working_set_bytes{container="user-container",namespace="models",pod="ocr-1"} 1.37461760e+08 1700000000123
node_memory_working_set_bytes 2.0e+09 1700000000000
pod_memory_working_set_bytes{namespace="models",pod="ocr-1"} 1.6e+08 1700000000000
"""
FOUND = {("models", "ocr-1", "queue-proxy"): 25165824, ("models", "ocr-1", "user-container"): 137461760}


class Authority:
    """Signs, by itself or by another, in plain PEM."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
        self.certificate = self._signed(
            self.key.public_key(), self.name, x509.BasicConstraints(ca=True, path_length=None)
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def serving(self, folder: Path, address: str) -> ssl.SSLContext:
        """A server's side, with a certificate for this address."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:n1")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        pair = folder / "kubelet.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pair.write_bytes(private + self._signed(key.public_key(), name, names).public_bytes(serialization.Encoding.PEM))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair)
        return context

    def _signed(
        self, key: ec.EllipticCurvePublicKey, subject: x509.Name, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


class Kubelet:
    """One kubelet. tokens: those that it was shown."""

    def __init__(self, account: Path) -> None:
        self.account = account
        self.authority = Authority()
        self.body = TEXT.encode()
        self.status = 200
        self.stalls = False
        self.tokens: list[str] = []
        self.reader: Kubelets
        self.trust(self.authority, "one")

    def trust(self, authority: Authority, token: str) -> None:
        """What lies in the service account's directory."""
        (self.account / "ca.crt").write_text(authority.pem)
        (self.account / "token").write_text(f"{token}\n")

    async def ask(self) -> object:
        return await self.reader.working_sets(LOCAL)

    async def answer(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers["Authorization"])
        if self.stalls:
            await asyncio.Event().wait()
        headers = {"Location": f"https://{LOCAL}:{request.url.port}/metrics/resource"} if self.status == 302 else None
        return web.Response(status=self.status, body=self.body, headers=headers)


@asynccontextmanager
async def serving(kubelet: Kubelet, address: str = LOCAL, plain: bool = False) -> AsyncIterator[Kubelet]:
    app = web.Application()
    app.router.add_get("/metrics/resource", kubelet.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = None if plain else kubelet.authority.serving(kubelet.account, address)
    try:
        await web.TCPSite(runner, LOCAL, 0, ssl_context=context).start()
        async with Kubelets(kubelet.account, runner.addresses[0][1]) as kubelet.reader:
            yield kubelet
    finally:
        await runner.cleanup()


def test_working_sets_are_read_by_container() -> None:
    assert working_sets(TEXT) == FOUND


@pytest.mark.parametrize(
    "text",
    [
        "", "container_memory_working_set_bytes 12\n", "container_memory_working_set_bytes{pod=\"a\"} 12\n",
        TEXT.replace("1.37461760e+08", "NaN").replace("2.5165824e+07", "1e999"),
        TEXT.replace("1.37461760e+08", "").replace("2.5165824e+07", "e"), TEXT.replace('"models"', '"mod\\"els"'),
        TEXT.replace("container_memory", "other"),
    ],
    ids=range(7),
)  # fmt: skip
def test_what_is_no_measurement_is_left_out(text: str) -> None:
    assert working_sets(text) == {}


def test_a_kubelet_is_read_with_the_token_and_the_authority_of_now(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(Kubelet(tmp_path)) as kubelet:
            assert await kubelet.ask() == FOUND
            kubelet.trust(kubelet.authority, "two")
            assert await kubelet.ask() == FOUND
            assert kubelet.tokens == ["Bearer one", "Bearer two"]
            kubelet.trust(Authority(), "three")
            with pytest.raises(KubeUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                await kubelet.ask()
            kubelet.trust(kubelet.authority, "four")
            assert await kubelet.ask() == FOUND
            assert kubelet.tokens == ["Bearer one", "Bearer two", "Bearer four"]

    run(body())


def test_a_certificate_for_another_address_gets_no_token(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(Kubelet(tmp_path), "10.0.0.1") as kubelet:
            with pytest.raises(KubeUnreachable, match="IP address mismatch"):
                await kubelet.ask()
            assert kubelet.tokens == []

    run(body())


def test_a_kubelet_without_tls_gets_no_token(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(Kubelet(tmp_path), plain=True) as kubelet:
            with pytest.raises(KubeUnreachable):
                await kubelet.ask()
            assert kubelet.tokens == []

    run(body())


@pytest.mark.parametrize("status", [302, 401, 403, 500])
def test_another_answer_is_an_error_with_its_status_and_is_not_followed(tmp_path: Path, status: int) -> None:
    async def body() -> None:
        async with serving(Kubelet(tmp_path)) as kubelet:
            kubelet.status = status
            with pytest.raises(KubeError, match=str(status)) as caught:
                await kubelet.ask()
            assert caught.value.status == status
            assert len(kubelet.tokens) == 1

    run(body())


def _stall(kubelet: Kubelet) -> None:
    kubelet.stalls = True


def _send(body: bytes) -> Callable[[Kubelet], None]:
    def send(kubelet: Kubelet) -> None:
        kubelet.body = body

    return send


def _forget_token(kubelet: Kubelet) -> None:
    (kubelet.account / "token").unlink()


def _spoil_authority(kubelet: Kubelet) -> None:
    (kubelet.account / "ca.crt").write_text("no certificate")


@pytest.mark.parametrize(
    "spoil",
    [_stall, _send(b"\xff"), _send(b"x" * 5000), _forget_token, _spoil_authority],
    ids=["silence", "no text", "too much", "no token", "no authority"],
)
def test_whatever_goes_wrong_is_one_kind_of_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Kubelet], None]
) -> None:
    monkeypatch.setattr(kubelet, "_ANSWER_S", 0.3)
    monkeypatch.setattr(kubelet, "_LARGEST", 4096)

    async def body() -> None:
        async with serving(Kubelet(tmp_path)) as asked:
            spoil(asked)
            with pytest.raises(KubeUnreachable):
                await asked.ask()

    run(body())


def test_where_no_kubelet_listens_it_is_unreachable(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(Kubelet(tmp_path)) as kubelet:
            port = kubelet.reader._port
        async with Kubelets(tmp_path, port) as reader:
            with pytest.raises(KubeUnreachable):
                await reader.working_sets(LOCAL)

    run(body())
