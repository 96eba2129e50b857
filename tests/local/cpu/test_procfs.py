"""What /proc says of real processes."""

from __future__ import annotations

import asyncio
import sys

import pytest

from knative_sponge.local.cpu.procfs import computing
from tests.local.guarded_tree import run_guarded
from tests.local.waiting import until

IDLE = "import threading; threading.Event().wait()"
BUSY = """
import threading
def spin():
    while True: pass
threading.Thread(target=spin).start()
threading.Event().wait()
"""


@pytest.mark.parametrize(("code", "busy"), [(IDLE, False), (BUSY, True)])
def test_a_tree_computes_when_any_of_its_threads_does(code: str, busy: bool) -> None:
    async def main() -> None:
        async with run_guarded([sys.executable, "-c", code]) as tree:
            # The start itself computes: it is over when the answer stays.
            for _ in range(3):
                await until(lambda: computing(tree.guardian) is busy, f"computing is {busy}")

    asyncio.run(main())


def test_nothing_below_computes_nothing() -> None:
    async def main() -> None:
        async with run_guarded(["true"]) as tree:
            await tree.wait()
            assert not computing(tree.guardian)

    asyncio.run(main())
