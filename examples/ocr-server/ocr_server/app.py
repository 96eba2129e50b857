"""The HTTP face of the server: routes, status codes, error bodies. No decoding of tensors, no inference."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ocr_server import v2
from ocr_server.detector import Detection, Detector, ImageError
from ocr_server.workers import Workers

MAX_BODY: Final = 64 * 2**20


def create_app(model: Path, pixels: int, cores: float) -> Starlette:
    """The server as an ASGI app. The model is loaded and run once before the first request is taken."""
    detector = Detector(model, pixels)
    workers: Workers[bytes, Detection] = Workers(detector.detect, cores)

    async def good(_: Request) -> Response:
        return Response()

    async def server(_: Request) -> Response:
        return JSONResponse(v2.SERVER_METADATA)

    async def metadata(_: Request) -> Response:
        return JSONResponse(v2.MODEL_METADATA)

    async def infer(request: Request) -> Response:
        body = await _body(request)
        try:
            call = v2.parse(body, request.headers.get(v2.HEADER_LENGTH))
            found = await workers.run(call.images)
        except (v2.CallError, ImageError) as error:
            return _error(400, str(error))
        answer, header_length = v2.answer(call, found)
        if header_length is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={v2.HEADER_LENGTH: str(header_length)})

    async def cpu(request: Request) -> Response:
        try:
            wish = json.loads(await _body(request))
            cores = wish["cores"]
            if isinstance(cores, bool):
                raise TypeError
            threads = workers.resize(cores)
        except (ValueError, TypeError, KeyError):
            return _error(400, 'expected {"cores": <a number above 0>}')
        return JSONResponse({"cores": cores, "threads": threads})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        detector.warm_up()
        yield
        workers.close()

    return Starlette(
        routes=[
            Route("/v2", server),
            Route("/v2/health/live", good),
            Route("/v2/health/ready", good),
            Route(f"/v2/models/{v2.MODEL}", metadata),
            Route(f"/v2/models/{v2.MODEL}/ready", good),
            Route(f"/v2/models/{v2.MODEL}/infer", infer, methods=["POST"]),
            Route("/cpu", cpu, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _on_http_exception},
        lifespan=lifespan,
    )


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)
