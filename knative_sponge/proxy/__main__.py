"""`python -m knative_sponge.proxy`: the queue-proxy, told everything by its environment; holds no logic of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import uvloop

from knative_sponge.errors import SettingError
from knative_sponge.proxy.breaker import Breaker, breaker_for
from knative_sponge.proxy.server import build
from knative_sponge.proxy.stat import StatReporter
from knative_sponge.proxy.upstream import Upstream
from knative_sponge.settings import ProxySettings, ServingSettings

if TYPE_CHECKING:
    from knative_sponge.proxy.inference import Inference

logger = logging.getLogger(__name__)


def main() -> int:
    """Serve until told to stop; 0 after an orderly end, 1 when the settings or the ports cannot be used."""
    try:
        settings = ProxySettings.from_env(os.environ)
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("knative_sponge").setLevel(_level(settings.log_level))
        for doubt in settings.doubts:
            logger.warning("%s", doubt)
        upstream = Upstream(settings.upstream_host, settings.user_port, max_answer=settings.max_answer)
        breaker = breaker_for(settings.container_concurrency)
        serving = ServingSettings.from_env(os.environ)
        inference = None
        if serving.slo_s is not None:
            # Here, because it is the largest import and a plain queue-proxy starts without it.
            from knative_sponge.proxy.inference import Inference  # noqa: PLC0415

            inference = Inference(settings, serving, upstream, breaker)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, upstream, breaker, inference))
    except (SettingError, OSError) as error:
        print(f"knative-sponge queue-proxy: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(
    settings: ProxySettings, upstream: Upstream, breaker: Breaker | None, inference: Inference | None
) -> None:
    stat = StatReporter(settings.pod)
    stat.start()
    if inference is None:
        await build(settings, upstream=upstream, breaker=breaker, stat=stat).run()
        return
    servers = build(
        settings,
        upstream=upstream,
        inference=inference.endpoint,
        admin_routes=inference.admin_routes,
        breaker=breaker,
        stat=stat,
        metrics_app=inference.metrics_app,
        finish=inference.close,
    )
    inference.start()
    await servers.run()


def _level(word: str) -> int:
    """Knative's log levels are zap's; those Python does not have mean `info`."""
    level = logging.getLevelNamesMapping().get(word.upper(), logging.INFO)
    return level or logging.INFO


if __name__ == "__main__":
    sys.exit(main())
