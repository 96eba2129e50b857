"""How commands are told their port."""

from __future__ import annotations

import pytest

from knative_sponge.local.servers import VARIABLES, launch


@pytest.mark.parametrize("command", [("mlserver", "start", "."), ("sh", "-c", "exec uvicorn app:app"), ("./anything",)])
def test_the_variables_of_all_servers_are_set_whatever_the_command(command: tuple[str, ...]) -> None:
    told = launch(command, 81, {})
    assert told.command == command
    assert told.note == ""
    assert (
        told.env["PORT"]
        == told.env["MLSERVER_HTTP_PORT"]
        == told.env["UVICORN_PORT"]
        == told.env["BENTOML_PORT"]
        == "81"
    )
    assert set(told.env) == {"PORT", *VARIABLES}


def test_a_variable_that_clients_read_too_is_set_for_its_server_only() -> None:
    assert launch(("ollama", "serve"), 81, {}).env["OLLAMA_HOST"] == "127.0.0.1:81"
    assert "OLLAMA_HOST" not in launch(("ollama", "serve"), 81, {"OLLAMA_HOST": "0.0.0.0"}).env
    assert "OLLAMA_HOST" not in launch(("uvicorn", "app:that_asks_ollama"), 81, {}).env


def test_what_the_user_has_set_stays_but_for_knatives_own_variable() -> None:
    told = launch(("mlserver", "start"), 81, {"MLSERVER_HTTP_PORT": "9000", "PORT": "9001"})
    assert "MLSERVER_HTTP_PORT" not in told.env
    assert told.env["PORT"] == "81"


def test_the_placeholder_stands_for_the_port_in_any_word() -> None:
    assert launch(("x", "--bind=[::]:{port}", "{port}"), 81, {}).command == ("x", "--bind=[::]:81", "81")


@pytest.mark.parametrize(
    ("command", "added"),
    [
        ("vllm serve some/model --dtype float32", "--port 81"),
        ("/opt/venv/bin/vllm serve some/model", "--port 81"),
        ("uv run vllm serve some/model", "--port 81"),
        ("poetry run python -m sglang.launch_server", "--port 81"),
        ("python -m vllm.entrypoints.openai.api_server --model m", "--port 81"),
        ("python3.11 -u -m sglang.launch_server --model-path m", "--port 81"),
        ("tritonserver --model-repository=/models", "--http-port 81"),
        ("hypercorn app:app", "--bind 127.0.0.1:81"),
        ("python -m sklearnserver --model_dir /m", "--http_port 81"),
        ("tensorflow_model_server --model_name=m", "--rest_api_port=81"),
        ("ovms --model_name m", "--rest_port 81"),
    ],
)
def test_a_server_that_reads_no_variable_gets_its_flag_at_the_end_and_that_is_said(command: str, added: str) -> None:
    words = tuple(command.split())
    told = launch(words, 81, {})
    assert told.command == (*words, *added.split())
    assert added in told.note


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve some/model --port 9000",
        "vllm serve some/model --port={port}",
        "tritonserver --http-port=9000",
        "hypercorn -b 0.0.0.0:9000 app:app",
        "hypercorn -c conf.toml app:app",
        "vllm bench throughput",
        "python server.py -m vllm.entrypoints.openai.api_server",
        "python -m",
        "uv run",
        "python",
    ],
)
def test_a_command_that_names_its_port_or_is_another_stays_as_it_is(command: str) -> None:
    words = tuple(command.split())
    told = launch(words, 81, {})
    assert told.command == tuple(word.replace("{port}", "81") for word in words)
    assert told.note == ""
