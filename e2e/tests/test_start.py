"""How fast the sidecar starts in its pod: its process is killed, and the time from its new start to ready is taken."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import statistics
import time
from pathlib import Path

import pytest

from e2e.cluster.bare.config import CGROUP
from e2e.harness.kube import Kube, Object
from e2e.harness.services import SLO, Services
from e2e.running import current
from e2e.tests.conftest import Measure

_TIMES = 5
_PROBE = {"K-Network-Probe": "queue", "User-Agent": "kube-probe/1.34"}


def _process(pod: Object) -> int | None:
    """The process of a pod's queue-proxy, on this machine."""
    root = Path("/sys/fs/cgroup")
    tops = [root / CGROUP, root / "cpu" / CGROUP]
    for top in (top for top in tops if top.is_dir()):
        for file in top.glob(f"kubepods/**/pod{pod['metadata']['uid']}/*/cgroup.procs"):
            for pid in map(int, file.read_text().split()):
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes()
                    environment = Path(f"/proc/{pid}/environ").read_bytes()
                    if b"QUEUE_SERVING_PORT=" in environment and words:
                        return pid
    return None


def _started_s(pid: int) -> float:
    """When a process started, on the monotonic clock (boot time and it differ by suspensions only)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    since_boot_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


def _ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8012, timeout=1)
    try:
        connection.request("GET", "/", headers=_PROBE)
        return connection.getresponse().read() == b"queue"
    except OSError:
        return False
    finally:
        connection.close()


def _start_to_ready_s(pod: Object, kube: Kube) -> float:
    old = _process(pod)
    assert old is not None
    os.kill(old, signal.SIGKILL)
    kube.until("the proxy's end", lambda: not _ready(pod["status"]["podIP"]))
    end_s = time.monotonic() + 60
    while not _ready(pod["status"]["podIP"]):
        assert time.monotonic() < end_s, "the proxy did not come back"
        time.sleep(0.002)
    ready_s = time.monotonic()
    new = _process(pod)
    assert new is not None
    assert new != old
    return ready_s - _started_s(new)


@pytest.mark.parametrize("proxy", ["ours", "stock"])
def test_start_to_ready_in_the_pod(proxy: str, services: Services, kube: Kube, measure: Measure) -> None:
    if current().provider.name != "bare":
        pytest.skip("processes of pods are only seen on the bare cluster")
    annotations = {SLO: "5s"} if proxy == "ours" else {"autoscaling.knative.dev/min-scale": "1"}
    times = []
    for number in range(_TIMES):  # a pod of its own each: kubelet waits ever longer before it restarts a container
        services.create(f"echo-{number}", "echo", annotations=annotations, more=["--request", "cpu=50m"])
        (pod,) = kube.pods(f"echo-{number}", services.namespace)
        times.append(_start_to_ready_s(pod, kube))
        services.kn("service", "delete", f"echo-{number}", "--no-wait")
    measure("start to ready, median s", round(statistics.median(times), 3))
    measure("start to ready, all s", [round(one, 3) for one in times])
