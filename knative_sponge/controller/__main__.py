"""`python -m knative_sponge.controller`: autoscaler and webhook, told everything by its environment; no logic of its own."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import random
import signal
import sys
from typing import Final

import uvloop

from knative_sponge.controller.kube.client import Kube
from knative_sponge.controller.process import Process
from knative_sponge.errors import SettingError
from knative_sponge.process_limits import raise_open_files
from knative_sponge.settings import ControllerSettings

LAST_S: Final = 26.0
"""After SIGTERM the process exits with 1 after so long, wherever it stands; Kubernetes would kill it 4 s later."""


def main() -> int:
    """Run until told to stop; 0 after an orderly end, 1 when settings, cluster or ports cannot be used, or a part failed."""
    try:
        settings = ControllerSettings.from_env(os.environ)
    except SettingError as error:
        print(f"knative-sponge autoscaler: {error}", file=sys.stderr)
        return 1
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("knative_sponge").setLevel(settings.log_level.upper())
    raise_open_files()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except (OSError, SettingError) as error:
        print(f"knative-sponge autoscaler: {error}", file=sys.stderr)
        return 1
    except Exception:
        logging.getLogger("knative_sponge").exception("a part failed, ending")
        return 1
    return 0


async def _serve(settings: ControllerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(*_: object) -> None:
        # Not left to the loop, which may be blocked. It prints where each thread stands.
        faulthandler.dump_traceback_later(LAST_S, exit=True)
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    await Process(settings, await Kube.connect(), random.Random()).run(stop)


if __name__ == "__main__":
    sys.exit(main())
