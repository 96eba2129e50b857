"""`python -m e2e.apps.affine`: the model behind the Open Inference Protocol (V2), JSON only.

PORT (8080), A (2), B (1): y = A·x + B; WORK_MS_PER_ROW, WORK_MS_PER_CALL (0): CPU time in milliseconds.

POST /v2/models/affine/infer    POST /cpu {"cores": c}    GET /stats, /v2/health/live, /v2/health/ready, /v2/models/affine
POST /hold: inference waits, for HOLD_S at the most, until POST /release
"""

from __future__ import annotations

import json
import os
from http import HTTPStatus

from e2e.apps.affine.model import Affine, Refused
from e2e.apps.plain_http import BadRequest, Exchange, Server

_GOOD = ("/", "/v2/health/live", "/v2/health/ready", "/v2/models/affine/ready")
_METADATA = {
    "name": "affine",
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, -1]}],
    "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1, -1]}],
}


def serve(model: Affine, port: int) -> Server:
    """A server of `model` that listens; `run` it."""

    class Handler(Exchange):
        def do_GET(self) -> None:  # noqa: N802
            path = self.path.partition("?")[0]
            if path in _GOOD:
                self.answer(HTTPStatus.OK, {})
            elif path == "/stats":
                self.answer(HTTPStatus.OK, model.report())
            elif path == "/v2/models/affine":
                self.answer(HTTPStatus.OK, _METADATA)
            else:
                self.answer(HTTPStatus.NOT_FOUND, {"error": f"nothing at {path}"})

        def do_POST(self) -> None:  # noqa: N802
            try:
                body = self.body()
                if self.path == "/v2/models/affine/infer":
                    self.answer(HTTPStatus.OK, model.infer(_object(body)))
                elif self.path == "/cpu":
                    model.resize(_object(body).get("cores"))
                    self.answer(HTTPStatus.OK, model.report())
                elif self.path in ("/hold", "/release"):
                    model.hold(self.path == "/hold")
                    self.answer(HTTPStatus.OK, {})
                else:
                    self.answer(HTTPStatus.NOT_FOUND, {"error": f"nothing at {self.path}"})
            except BadRequest as error:
                self.close_connection = True
                self.answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            except Refused as error:
                self.answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    return Server(("", port), Handler)


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Refused("the body is not JSON") from error
    if not isinstance(value, dict):
        raise Refused("the body is not a JSON object")
    return value


if __name__ == "__main__":
    defaults = {"A": 2.0, "B": 1.0, "WORK_MS_PER_ROW": 0.0, "WORK_MS_PER_CALL": 0.0}
    a, b, row_ms, call_ms = (float(os.environ.get(name) or default) for name, default in defaults.items())
    serve(Affine(a, b, row_ms, call_ms), int(os.environ.get("PORT") or 8080)).run()
