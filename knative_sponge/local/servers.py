"""Well-known model servers: what tells each of them its port, and where each says that it is ready; starts and asks nothing.

The variables are set for every command, whatever it is, because a server may be started by a script. A variable that its user
has set stays. A flag is added only where a server reads no variable, only at the end of a command that is recognised, and only
when the command names no port. Sources: docs/servers.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

PLACEHOLDER: Final = "{port}"
"""In any word of a command it stands for the port."""

VARIABLES: Final[Mapping[str, str]] = {
    "MLSERVER_HTTP_PORT": PLACEHOLDER,
    "UVICORN_PORT": PLACEHOLDER,
    "BENTOML_PORT": PLACEHOLDER,
    "RAY_SERVE_DEFAULT_HTTP_PORT": PLACEHOLDER,
    "LLAMA_ARG_PORT": PLACEHOLDER,
    "GRANIAN_PORT": PLACEHOLDER,
    "FLASK_RUN_PORT": PLACEHOLDER,
    "GRADIO_SERVER_PORT": PLACEHOLDER,
    "STREAMLIT_SERVER_PORT": PLACEHOLDER,
}
"""Read by servers, and by nothing else, beside `PORT`, which Knative promises and gunicorn and many others read."""

READY_PATHS: Final = ("/v2/health/ready", "/readyz", "/health", "/-/healthz")
"""Where servers say whether they are ready: the Open Inference Protocol, BentoML, LitServe with vLLM and llama.cpp, Ray Serve.
They are asked in this order. A server that has none of them counts as ready when it accepts connections."""


@dataclass(frozen=True, slots=True)
class _Flagged:
    """A server that only a flag tells its port, or a variable that has another meaning for other programs.

    flag: with `{port}`. given: how a flag begins that names a port already. env: set for this server only.
    """

    name: str
    flag: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


_VLLM: Final = _Flagged("vLLM", ("--port", PLACEHOLDER), ("--port", "--uds", "--headless"))
_TRITON: Final = _Flagged("Triton", ("--http-port", PLACEHOLDER), ("--http-port",))
_HYPERCORN: Final = _Flagged("Hypercorn", ("--bind", "127.0.0.1:" + PLACEHOLDER), ("--bind", "-b", "--config", "-c"))
_KSERVE: Final = _Flagged("KServe", ("--http_port", PLACEHOLDER), ("--http_port", "--http-port"))
_TF_SERVING: Final = _Flagged("TensorFlow Serving", ("--rest_api_port=" + PLACEHOLDER,), ("--rest_api_port",))
_OPENVINO: Final = _Flagged("OpenVINO", ("--rest_port", PLACEHOLDER), ("--rest_port",))
_OLLAMA: Final = _Flagged("Ollama", env={"OLLAMA_HOST": "127.0.0.1:" + PLACEHOLDER})  # its clients read it too
_SGLANG: Final = _Flagged("SGLang", ("--port", PLACEHOLDER), ("--port",))

_PROGRAMS: Final[Mapping[tuple[str, ...], _Flagged]] = {
    ("vllm", "serve"): _VLLM,
    ("tritonserver",): _TRITON,
    ("hypercorn",): _HYPERCORN,
    ("tensorflow_model_server",): _TF_SERVING,
    ("ovms",): _OPENVINO,
    ("ollama", "serve"): _OLLAMA,
}
_RUNNERS: Final = {("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("pdm", "run"), ("hatch", "run")}
_MODULES: Final[Mapping[str, _Flagged]] = {
    "vllm.entrypoints.openai.api_server": _VLLM,
    "hypercorn": _HYPERCORN,
    "sglang.launch_server": _SGLANG,
    **dict.fromkeys(("sklearnserver", "xgbserver", "lgbserver", "pmmlserver", "paddleserver"), _KSERVE),
    **dict.fromkeys(("huggingfaceserver", "predictiveserver"), _KSERVE),
}


@dataclass(frozen=True, slots=True)
class Launch:
    """How a command is started so that it listens on a port. env: variables to add. note: what was added to the command."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    note: str = ""


def launch(command: Sequence[str], port: int, env: Mapping[str, str]) -> Launch:
    """The command as it tells its server to listen on `port`. env: of this process; what it sets stays, but for `PORT`."""

    def filled(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(word.replace(PLACEHOLDER, str(port)) for word in words)

    server = _flagged(command)
    variables = VARIABLES if server is None else {**VARIABLES, **server.env}
    added = {name: value.replace(PLACEHOLDER, str(port)) for name, value in variables.items() if name not in env}
    added["PORT"] = str(port)
    if (
        server is None
        or not server.flag
        or any(PLACEHOLDER in word or word.startswith(server.given) for word in command)
    ):
        return Launch(filled(command), added)
    flag = filled(server.flag)
    return Launch((*filled(command), *flag), added, f"{server.name} is told its port: {' '.join(flag)}")


def _flagged(command: Sequence[str]) -> _Flagged | None:
    words = list(command)
    while tuple(words[:2]) in _RUNNERS:
        del words[:2]
    if not words:
        return None
    program, rest = PurePath(words[0]).name, words[1:]
    for call, server in _PROGRAMS.items():
        if (program, *rest[: len(call) - 1]) == call:
            return server
    if program.startswith(("python", "pypy")) and "-m" in rest[:-1]:
        at = rest.index("-m")
        # A word before `-m` that is no option is a script, and `-m` then is the script's own.
        if all(word.startswith("-") for word in rest[:at]):
            return _MODULES.get(rest[at + 1])
    return None
