"""`python -m e2e.apps.events`: the sink behind HTTP.

PORT (8080); FAIL_FIRST (0) attempts per event are answered FAIL_STATUS (503), the others 202 without a body.

POST any path: an event, binary or structured    GET /received: all attempts as JSON    DELETE /received    GET /
"""

from __future__ import annotations

import os
from http import HTTPStatus

from e2e.apps.events.sink import NoEvent, Sink
from e2e.apps.plain_http import BadRequest, Exchange, Server


def serve(sink: Sink, port: int) -> Server:
    """A server of `sink` that listens; `run` it."""

    class Handler(Exchange):
        def do_GET(self) -> None:  # noqa: N802
            self.answer(HTTPStatus.OK, sink.received() if self.path == "/received" else {})

        def do_DELETE(self) -> None:  # noqa: N802
            sink.forget()
            self.answer(HTTPStatus.NO_CONTENT)

        def do_POST(self) -> None:  # noqa: N802
            try:
                self.answer(sink.take(self.headers.items(), self.body()))
            except (BadRequest, NoEvent) as error:
                self.close_connection = True
                self.answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    return Server(("", port), Handler)


if __name__ == "__main__":
    fail_first, fail_status = (int(os.environ.get(n) or v) for n, v in (("FAIL_FIRST", 0), ("FAIL_STATUS", 503)))
    serve(Sink(fail_first, fail_status), int(os.environ.get("PORT") or 8080)).run()
