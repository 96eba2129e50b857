"""CPU seconds of this process. Wall time says nothing on a machine that others use."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def cpu_s(run: Callable[[], object]) -> float:
    """CPU seconds that one call took; a collection of everybody's garbage does not fall into it."""
    gc.collect()
    gc.disable()
    try:
        start_s = time.process_time()
        run()
        return time.process_time() - start_s
    finally:
        gc.enable()
