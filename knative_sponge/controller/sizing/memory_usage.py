"""Asks kubelets how much memory the containers of their nodes use. Asks nobody else, and decides nothing.

The token goes only to a kubelet whose certificate was signed by the cluster's authority for the node's address. A kubelet with
a certificate that it made itself is not asked: anybody could answer in its place and get the token.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import aiohttp

from knative_sponge.errors import KubeError, KubeUnreachable

_MOST: Final = 2.0**60
"""Bytes in use at most. A larger number is none."""
_LONGEST_NUMBER: Final = 40

Place = tuple[str, str, str]
"""Namespace, pod, container."""

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PORT: Final = 10250
_ANSWER_S: Final = 3.0
_LARGEST: Final = 8 * 2**20
"""Bytes of an answer at most. A node with 250 pods sends about 1 MiB."""
_SAMPLE: Final = re.compile(r"^container_memory_working_set_bytes\{([^}\n]*)\} ([0-9.e+]+)(?: |$)", re.MULTILINE)
_LABEL: Final = re.compile(r'(?<!\w)(\w++)="([^"\\]*)"')


class Kubelets:
    """Use it with `async with`. account: directory of the token and of the authority's certificate. port: of kubelets."""

    def __init__(self, account: Path = ACCOUNT, port: int = PORT) -> None:
        self._account = account
        self._port = port
        self._authority = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Kubelets:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def working_sets(self, address: str) -> Mapping[Place, int]:
        """Bytes that each container of a node keeps in use, by the node's InternalIP.

        Raises KubeError with the status that the kubelet answered, and KubeUnreachable where there is no such answer.
        """
        host = f"[{address}]" if ":" in address else address
        url = f"https://{host}:{self._port}/metrics/resource"
        body = bytearray()
        try:
            session = await self._trusting()
            # Read each time: a token is replaced about once an hour.
            headers = {"Authorization": f"Bearer {self._read('token').strip()}"}
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise KubeError(f"GET {url}: {answer.status}", status=answer.status)
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > _LARGEST:
                        raise ValueError(f"more than {_LARGEST} bytes")
            return working_sets(body.decode())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubeUnreachable(f"GET {url}: {type(error).__name__}: {error}") from error

    async def _trusting(self) -> aiohttp.ClientSession:
        """The session that trusts the authority that `ca.crt` names now."""
        authority = self._read("ca.crt")
        if self._session is None or authority != self._authority:
            # From Python 3.13 on, `create_default_context` asks for fields that clusters' authorities commonly leave out.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=authority)
            before, self._authority = self._session, authority
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                timeout=aiohttp.ClientTimeout(total=_ANSWER_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
            )
            if before is not None:
                await before.close()
        return self._session

    def _read(self, name: str) -> str:
        return (self._account / name).read_text()


def working_sets(text: str) -> Mapping[Place, int]:
    """Bytes by container, from the text of `/metrics/resource`. Lines that are not understood are left out."""
    found: dict[Place, int] = {}
    for labels, value in _SAMPLE.findall(text):
        named = dict(_LABEL.findall(labels))
        try:
            size = float(value[:_LONGEST_NUMBER])
            if size <= _MOST:
                found[named["namespace"], named["pod"], named["container"]] = int(size)
        except (KeyError, ValueError, OverflowError):
            continue
    return found
