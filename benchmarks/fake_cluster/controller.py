"""The real controller against the fake cluster: `python -m benchmarks.fake_cluster.controller API_PORT PROXIES_PORT`."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys

import uvloop

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.process import Process
from knative_sponge.settings import ControllerSettings
from tests.controller.admission.pod_kit import IMAGE


async def serve(api_port: int, proxies_port: int) -> None:
    """Run the controller until SIGTERM."""
    settings = ControllerSettings(
        pod="autoscaler-0",
        namespace="knative-sponge",
        proxy_image=IMAGE,
        webhook_port=0,
        health_port=0,
        metrics_port=0,
    )
    kube = Kube.at(f"http://127.0.0.1:{api_port}")
    process = Process(settings, kube, random.Random(1), host="127.0.0.1", leaving_s=0.0, admin_port=proxies_port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await process.run(stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
