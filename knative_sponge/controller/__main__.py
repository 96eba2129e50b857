"""`python -m knative_sponge.controller`: autoscaler and webhook, told everything by its environment; no logic of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys

from kubernetes.aio.config import ConfigException

from knative_sponge.controller.kube import Kube
from knative_sponge.controller.process import Process
from knative_sponge.errors import SettingError
from knative_sponge.settings import ControllerSettings


def main() -> int:
    """Run until told to stop; 0 after an orderly end, 1 when settings, cluster or ports cannot be used, or a part failed."""
    try:
        settings = ControllerSettings.from_env(os.environ)
    except SettingError as error:
        print(f"knative-sponge autoscaler: {error}", file=sys.stderr)
        return 1
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("knative_sponge").setLevel(settings.log_level.upper())
    try:
        asyncio.run(_serve(settings))
    except (OSError, ConfigException) as error:
        print(f"knative-sponge autoscaler: {error}", file=sys.stderr)
        return 1
    except Exception:
        logging.getLogger("knative_sponge").exception("a part failed, ending")
        return 1
    return 0


async def _serve(settings: ControllerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Process(settings, await Kube.connect(), random.Random()).run(stop)


if __name__ == "__main__":
    sys.exit(main())
