"""Stands in for servers that are not installed here: it takes its port as each is documented to, and answers sums.

`python documented.py NAME ARGS...`. It says 503 on the server's readiness path to the first questions, then 200.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FLAGS = {
    "vllm": "--port", "tritonserver": "--http-port", "tensorflow_model_server": "--rest_api_port", "ovms": "--rest_port",
    "sglang.launch_server": "--port", "sklearnserver": "--http_port", "llama-server": "--port", "streamlit": "--server.port",
}  # fmt: skip
VARIABLES = {
    "llama-server": "LLAMA_ARG_PORT", "ollama": "OLLAMA_HOST", "gradio": "GRADIO_SERVER_PORT",
    "streamlit": "STREAMLIT_SERVER_PORT",
}  # fmt: skip
DEFAULTS = {"vllm": 8000, "tritonserver": 8000, "sglang.launch_server": 30000, "sklearnserver": 8080, "ollama": 11434}
READY = {
    "vllm": "/health", "llama-server": "/health", "sglang.launch_server": "/health", "tritonserver": "/v2/health/ready",
    "ovms": "/v2/health/ready", "sklearnserver": "/v2/health/ready",
}  # fmt: skip
QUESTIONS = 2


def port_of(name: str, argv: list[str]) -> int:
    """A flag wins over a variable, and that over the default."""
    flag = FLAGS.get(name, "--none")
    words = [part for word in argv for part in word.split("=", 1)]
    if flag in words:
        return int(words[words.index(flag) + 1])
    value = os.environ.get(VARIABLES.get(name, ""), "")
    return int(value.rpartition(":")[2]) if value else DEFAULTS.get(name, 0)


class Handler(BaseHTTPRequestHandler):
    """Of one request."""

    protocol_version = "HTTP/1.1"
    name = ""
    asked = 0

    def do_GET(self) -> None:
        """Readiness, and nothing else."""
        if self.path != READY.get(self.name):
            self.answer(404, {})
            return
        type(self).asked += 1
        self.answer(503 if self.asked <= QUESTIONS else 200, {})

    def do_POST(self) -> None:
        """The sums."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        rows = body.get("inputs", body.get("instances"))
        self.answer(200, {"predictions": [sum(row) for row in rows]})

    def answer(self, status: int, body: object) -> None:
        """As JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    Handler.name = sys.argv[1]
    ThreadingHTTPServer(("127.0.0.1", port_of(sys.argv[1], sys.argv[2:])), Handler).serve_forever()
