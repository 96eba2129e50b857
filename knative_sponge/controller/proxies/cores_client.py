"""Tells a proxy its size (docs/design.md §5.2, `PUT /sponge/v1/cores`); whether it heard is all that is known afterwards."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from knative_sponge.controller.proxies.demand_streams import Address
from knative_sponge.core.quantity import format_cores
from knative_sponge.errors import WireError
from knative_sponge.wire.client import AdminClient
from knative_sponge.wire.cores import CoresMessage, Phase
from knative_sponge.wire.http import ADMIN_PORT

_log: Final = logging.getLogger(__name__)

_REPLY_S: Final = 0.5
"""A proxy answers at once, or not at all; a shrink waits for it, and its node's other pods for the shrink."""
_AT_ONCE: Final = 64
"""Calls under way. A new leader tells every pod; more calls would run out of time together."""


class CoresClient:
    """All calls, each on a connection of its own: a pod hears of its size now and then only."""

    def __init__(self, port: int = ADMIN_PORT) -> None:
        self._port = port
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def tell(self, to: Address, phase: Phase, cores: float, reach: float) -> bool:
        """Did the proxy take it? reach: the most cores that one resize could give the pod on its node now."""
        message = CoresMessage(round(cores, 3), phase, round(max(reach, cores), 3))
        async with self._places:
            try:
                await AdminClient(to.ip, self._port, to.token, reply_s=_REPLY_S).put_cores(message)
            except WireError as error:
                level = logging.WARNING if error.status else logging.DEBUG
                _log.log(level, "%s was not told %s %s: %s", to.ip, phase, format_cores(cores), error)
                return False
        return True
