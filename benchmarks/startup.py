"""How soon a new proxy answers, and how much memory it takes: the kubelet probes it at once, and every pod has one.

    python -m benchmarks.startup [--runs 10] [--slo 500ms]

It measures the time from the start of the process to its first answer to a health check, with warm file caches, and the memory
(RSS) and CPU of an idle proxy. Targets: 400 ms and 64 MiB.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HEALTH = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n\r\n"
IDLE_S = 2.0


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def environment(port: int, slo: str) -> dict[str, str]:
    """The variables that Knative sets, and a port for each listener."""
    knative = {
        "SERVING_NAMESPACE": "default", "SERVING_CONFIGURATION": "c", "SERVING_REVISION": "r", "SERVING_POD": "p",
        "SERVING_POD_IP": "127.0.0.1", "QUEUE_SERVING_TLS_PORT": "0", "USER_PORT": "1", "CONTAINER_CONCURRENCY": "0",
        "REVISION_TIMEOUT_SECONDS": "300", "SERVING_LOGGING_CONFIG": "", "SERVING_LOGGING_LEVEL": "",
    }  # fmt: skip
    ports = {name: str(free_port()) for name in ("SPONGE_ADMIN_PORT", "SPONGE_STAT_PORT", "SPONGE_METRICS_PORT")}
    ours = {"SPONGE_HOST": "127.0.0.1", "SPONGE_DRAIN_QUIET": "0", "SPONGE_SLO": slo}
    return os.environ | knative | ports | ours | {"QUEUE_SERVING_PORT": str(port)}


def answers(port: int) -> bool:
    """Whether a health check is answered now."""
    with socket.socket() as connection:
        connection.settimeout(1.0)
        if connection.connect_ex(("127.0.0.1", port)) != 0:
            return False
        connection.sendall(HEALTH)
        return connection.recv(100).startswith(b"HTTP/1.1 200")


def cpu_s(process: int) -> float:
    """CPU seconds the process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(process: int) -> float:
    """Resident memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--slo", default="", help="with a deadline queue; without one the proxy only passes through")
    options = parser.parse_args()
    ready_ms, weights, busy = [], [], []
    for run in range(options.runs + 1):
        port = free_port()
        env = environment(port, options.slo)
        begun = time.perf_counter()
        with subprocess.Popen([sys.executable, "-m", "knative_sponge.proxy"], env=env) as process:
            try:
                while not answers(port):
                    if process.poll() is not None or time.perf_counter() - begun > 30:
                        raise RuntimeError("the proxy did not start")
                    time.sleep(0.001)
                took_ms = (time.perf_counter() - begun) * 1e3
                if run == 0:
                    continue  # it filled the file caches
                ready_ms.append(took_ms)
                if run == options.runs:
                    before = cpu_s(process.pid)
                    time.sleep(IDLE_S)
                    busy.append((cpu_s(process.pid) - before) / IDLE_S)
                weights.append(rss_mib(process.pid))
            finally:
                process.terminate()
    print(
        f"ready after: median {statistics.median(ready_ms):.0f} ms, best {min(ready_ms):.0f}, worst {max(ready_ms):.0f}"
    )
    print(f"memory when idle: {max(weights):.1f} MiB; CPU when idle: {max(busy):.2%} of a core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
