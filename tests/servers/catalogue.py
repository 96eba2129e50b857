"""The servers of docs/servers.md: how each is started and asked. It starts nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

ROWS: Final = [[1.0, 2.0], [3.0, 4.5]]
SUMS: Final = [3.0, 7.5]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the server's example application understands, and its right answer. version: of V2's inputs."""

    path: str
    body: Any
    answer: Any


_PREDICT: Final = Asked("/predict", {"inputs": ROWS}, {"predictions": SUMS})
_V1: Final = Asked("/v1/models/sums:predict", {"instances": ROWS}, {"predictions": SUMS})


@dataclass(frozen=True, slots=True)
class Server:
    """One line of the table.

    name, command: as in the table. environment: of requirements/servers, `foreign` for requirements/foreign.txt, empty for a
    program that only behaves as the server is documented. package: whose version was tried. asked: None for what this says
    of no inference. variables: of the command's environment. announces: what `sponge run` says about the port; None: nothing.
    ready: the path that says whether it is ready; empty where accepting connections says it.
    """

    name: str
    command: str
    environment: str
    package: str
    asked: Asked
    variables: dict[str, str] = field(default_factory=dict)
    announces: str | None = None
    ready: str = ""

    def __str__(self) -> str:
        return self.name


_FOUND: Final = "the model server does not listen on port"
SERVERS: Final = (
    Server("FastAPI on uvicorn", "uvicorn asgi:app", "foreign", "uvicorn", _PREDICT),
    Server("Flask on gunicorn", "gunicorn wsgi:app", "web", "gunicorn", _V1),
    Server("FastAPI on Hypercorn", "hypercorn asgi:app", "web", "Hypercorn", _PREDICT, announces="Hypercorn is told its port"),
    Server("FastAPI on Granian", "granian --interface asgi asgi:app", "web", "granian", _PREDICT),
    Server("Flask", "flask --app wsgi run", "web", "Flask", _V1),
    Server("FastAPI on Daphne", "daphne asgi:app", "web", "daphne", _PREDICT, announces=_FOUND),
    Server("Flask on Waitress", "waitress-serve wsgi:app", "web", "waitress", _V1, announces=_FOUND),
    Server(
        "MLServer",
        "mlserver start mlserver_model",
        "foreign",
        "mlserver",
        Asked(
            "/v2/models/affine/infer",
            {
                "inputs": [
                    {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]},
                    {"name": "label", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]},
                ]
            },
            None,
        ),
        {"MLSERVER_PARALLEL_WORKERS": "0"}, ready="/v2/health/ready"),
    Server("LitServe", "python lit.py", "litserve", "litserve", _PREDICT, announces=_FOUND, ready="/health"),
    Server("KServe SDK", "python ks.py --http_port {port}", "kserve", "kserve", _V1, ready="/v2/health/ready"),
    Server(
        "BentoML", "bentoml serve bento:Sums", "bentoml", "bentoml", Asked("/predict", {"inputs": ROWS}, SUMS),
        {"BENTOML_DO_NOT_TRACK": "true"}, ready="/readyz"),
    Server(
        "Ray Serve", "serve run rayserve:app", "ray", "ray", Asked("/", {"inputs": ROWS}, {"predictions": SUMS}),
        {"RAY_USAGE_STATS_ENABLED": "0"}, announces=_FOUND, ready="/-/healthz"),
    Server("vLLM", "vllm serve some/model", "", "", _PREDICT, announces="vLLM is told its port", ready="/health"),
    Server("llama.cpp", "llama-server -m model.gguf", "", "", _PREDICT, ready="/health"),
    Server(
        "Triton", "tritonserver --model-repository=models", "", "", _PREDICT,
        announces="Triton is told its port", ready="/v2/health/ready"),
    Server(
        "TensorFlow Serving", "tensorflow_model_server --model_name=sums", "", "", _V1,
        announces="TensorFlow Serving is told its port",
    ),
    Server(
        "OpenVINO", "ovms --model_name sums --model_path models", "", "", _PREDICT,
        announces="OpenVINO is told its port", ready="/v2/health/ready"),
    Server(
        "SGLang", "python -m sglang.launch_server --model-path some/model", "", "", _PREDICT,
        announces="SGLang is told its port", ready="/health"),
    Server(
        "KServe's runtimes", "python -m sklearnserver --model_dir models", "", "", _V1,
        announces="KServe is told its port", ready="/v2/health/ready"),
    Server("Ollama", "ollama serve", "", "", _PREDICT),
    Server("Gradio", "gradio app.py", "", "", _PREDICT),
    Server("Streamlit", "streamlit run app.py", "", "", _PREDICT),
)  # fmt: skip


def as_json(value: Any) -> bytes:
    """As it goes on the wire."""
    return json.dumps(value).encode()
