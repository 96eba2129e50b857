"""JSON over HTTPS to the API server, as one user: for the parts that the tests play. The product has a client of its own."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Final

import aiohttp

Object = dict[str, Any]

MERGE: Final = "application/merge-patch+json"


class RefusedError(Exception):
    """The server answered with a failure."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(f"{status}: {body.get('message')}")
        self.status = status


class Client:
    """`async with Client(...) as client: await client("GET", "/api/v1/pods")`. token: whose, when not the context's."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), headers=headers, timeout=aiohttp.ClientTimeout(total=10)
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def __call__(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json"
    ) -> Object:
        """The answer. Raises RefusedError for a failure, aiohttp.ClientError or TimeoutError without an answer."""
        async with self._session.request(
            method, self._url + path, json=body, headers={"Content-Type": kind} if body is not None else {}
        ) as answer:
            found: Object = await answer.json(content_type=None)
            if answer.status >= 300:
                raise RefusedError(answer.status, found)
            return found

    async def token(self, namespace: str, account: str) -> str:
        """A token of a service account, as a kubelet asks for one."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        answer = await self(method="POST", path=path, body=body)
        return str(answer["status"]["token"])
