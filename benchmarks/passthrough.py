"""How many requests per second the proxy passes through on one core: wrk → proxy → nginx, nothing batched.

    python -m benchmarks.passthrough [--runs 5] [--seconds 3] [--path /] [--connections 32]

The proxy runs on core 0; load and model server share core 1. It prints, for each run and as medians, requests/s and the
proxy's own CPU microseconds per request; other work on the machine disturbs the latter less. The same run measures two peers:
nginx as a reverse proxy in the proxy's place, and nginx asked directly, which bounds what the load generator can measure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROXY_CORE, LOAD_CORE = "0", "1"
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type text/plain;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""
ANSWER = 'location / { return 200 "hello"; } location /large { return 200 "%s"; }' % ("x" * 3500)
RELAY = 'location / { proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }'


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. per_s: answers per second; cpu_us: CPU microseconds of the server per answer."""

    per_s: float
    cpu_us: float
    failed: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def started(command: Sequence[str], port: int, env: dict[str, str] | None = None) -> Iterator[int]:
    """A server process, listening; its id (for nginx: its worker's)."""
    with subprocess.Popen(command, env=env) as process:
        try:
            until = time.monotonic() + 10
            while True:
                with socket.socket() as trial:
                    if trial.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} did not start")
                time.sleep(0.01)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield int(children[0]) if children else process.pid
        finally:
            process.terminate()


@contextmanager
def nginx(core: str, location: str, upstream: int = 1) -> Iterator[tuple[int, int]]:
    """nginx with one worker; its port and process id."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=port, location=location, upstream=upstream))
        command = ["taskset", "-c", core, "nginx", "-p", folder, "-c", str(config), "-e", "stderr"]
        with started(command, port) as process:
            yield port, process


@contextmanager
def proxy(upstream: int) -> Iterator[tuple[int, int]]:
    """The queue-proxy as Knative starts it, without a deadline queue; its port and process id."""
    port, admin_port = free_port(), free_port()
    env = os.environ | {
        "SERVING_NAMESPACE": "default", "SERVING_CONFIGURATION": "c", "SERVING_REVISION": "r", "SERVING_POD": "p",
        "SERVING_POD_IP": "127.0.0.1", "QUEUE_SERVING_PORT": str(port), "QUEUE_SERVING_TLS_PORT": "0",
        "USER_PORT": str(upstream), "CONTAINER_CONCURRENCY": "0", "REVISION_TIMEOUT_SECONDS": "300",
        "SERVING_LOGGING_CONFIG": "", "SERVING_LOGGING_LEVEL": "", "SPONGE_HOST": "127.0.0.1",
        "SPONGE_ADMIN_PORT": str(admin_port), "SPONGE_DRAIN_QUIET": "0",
    }  # fmt: skip
    with started(["taskset", "-c", PROXY_CORE, sys.executable, "-m", "knative_sponge.proxy"], port, env) as process:
        yield port, process


def cpu_s(process: int) -> float:
    """CPU seconds the process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, process: int, options: argparse.Namespace) -> Run:
    """Keep `connections` requests in flight for `seconds`."""
    before = cpu_s(process)
    wrk = ["taskset", "-c", LOAD_CORE, "wrk", "-t", "1", "-c", str(options.connections), "-d", f"{options.seconds}s"]
    done = subprocess.run([*wrk, f"http://127.0.0.1:{port}{options.path}"], capture_output=True, text=True, check=True)
    used = cpu_s(process) - before
    count = int(_found(r"(\d+) requests in", done.stdout))
    failed = sum(
        int(n) for n in re.findall(r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)", done.stdout)
    )
    return Run(float(_found(r"Requests/sec:\s+([\d.]+)", done.stdout)), used / max(count, 1) * 1e6, failed)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk said: {text}")
    return match[1]


def main() -> int:
    """Measure and print; 0 also when the tools are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--path", default="/", help="/ answers 5 bytes, /large 3500")
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "nginx", "taskset") if shutil.which(tool) is None]
    if missing or (os.cpu_count() or 1) < 2:
        print(f"skipped: needs two cores, wrk, nginx and taskset; missing: {', '.join(missing) or 'a core'}")
        return 0
    with ExitStack() as stack:
        model = stack.enter_context(nginx(LOAD_CORE, ANSWER))
        targets = {
            "sponge proxy": stack.enter_context(proxy(model[0])),
            "nginx as proxy": stack.enter_context(nginx(PROXY_CORE, RELAY, model[0])),
            "nginx directly": model,
        }
        for port, process in targets.values():
            load(port, process, argparse.Namespace(**vars(options) | {"seconds": 1}))
        runs: dict[str, list[Run]] = {name: [] for name in targets}
        for _ in range(options.runs):
            for name, (port, process) in targets.items():
                runs[name].append(load(port, process, options))
    print(f"{options.connections} connections, {options.seconds} s a run, {options.path}")
    print(f"{'':16}{'median/s':>10}{'best/s':>10}{'µs CPU':>8}{'failed':>8}   runs")
    for name, measured in runs.items():
        rates = [run.per_s for run in measured]
        print(
            f"{name:16}{statistics.median(rates):10,.0f}{max(rates):10,.0f}"
            f"{min(run.cpu_us for run in measured):8.1f}{sum(run.failed for run in measured):8}   "
            + " ".join(f"{rate:,.0f}" for rate in rates)
        )
    ours = statistics.median(run.per_s for run in runs["sponge proxy"])
    for peer in ("nginx as proxy", "nginx directly"):
        print(f"ratio to {peer}: {ours / statistics.median(run.per_s for run in runs[peer]):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
