"""y = a·x + b, with as much CPU work per row and per call as asked for. No HTTP."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

_BLOCK = bytes(1 << 16)  # hashing this much lets other threads run meanwhile
_TYPES = ("FP32", "FP64")
HOLD_S = 30.0
"""A call is held back for so long at the most: a test that died must not leave a server that never answers."""


class Refused(Exception):
    """The model does not take this input; the message says why."""


@dataclass(slots=True)
class Stats:
    """What the model was asked since it started: calls that it took and refused, rows, most rows in one call."""

    calls: int = 0
    refused: int = 0
    rows: int = 0
    largest_batch: int = 0
    cores: float = 1.0


@dataclass(slots=True)
class Affine:
    """The model. `row_ms`, `call_ms`: CPU time that a row and a call take; rows run side by side on ceil(cores) threads."""

    a: float = 2.0
    b: float = 1.0
    row_ms: float = 0.0
    call_ms: float = 0.0
    stats: Stats = field(default_factory=Stats)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def infer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """An Open Inference Protocol answer: one tensor, [n, k], of the type that came. Raises Refused."""
        try:
            (tensor,) = request["inputs"]
            kind, (rows, columns) = tensor["datatype"], tensor["shape"]
            values = list(_flat(tensor["data"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._refusal("one input [n, k] with name, datatype, shape and data is needed") from error
        if kind not in _TYPES or len(values) != rows * columns:
            raise self._refusal(f"{rows * columns} values of {' or '.join(_TYPES)} are needed")
        if any(math.isnan(value) or value < 0 for value in values):
            raise self._refusal("a row is poisoned: not a number, or negative")
        self._open.wait(HOLD_S)
        self._work(rows)
        with self._lock:
            self.stats.calls += 1
            self.stats.rows += rows
            self.stats.largest_batch = max(self.stats.largest_batch, rows)
        data = [self.a * value + self.b for value in values]
        answer = {"name": "y", "datatype": kind, "shape": [rows, columns], "data": data}
        return {"model_name": "affine", "outputs": [answer]} | ({"id": request["id"]} if "id" in request else {})

    def resize(self, cores: object) -> None:
        """Use that many cores from the next call on. Raises Refused."""
        if isinstance(cores, bool) or not isinstance(cores, int | float) or not 0 < cores < math.inf:
            raise Refused("cores must be a number above 0")
        with self._lock:
            self.stats.cores = cores

    def hold(self, back: bool) -> None:
        """Hold inference back, or let go on what is held and all that comes."""
        if back:
            self._open.clear()
        else:
            self._open.set()

    def report(self) -> dict[str, float]:
        """The figures of `stats`."""
        with self._lock:
            return asdict(self.stats)

    def _work(self, rows: int) -> None:
        _burn(self.call_ms)
        threads = min(math.ceil(self.stats.cores), rows)
        if self.row_ms and threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(_burn, [self.row_ms] * rows))
        else:
            _burn(self.row_ms * rows)

    def _refusal(self, why: str) -> Refused:
        with self._lock:
            self.stats.refused += 1
        return Refused(why)


def _burn(cpu_ms: float) -> None:
    """Use that much CPU time, not wall time: a quota makes it last longer."""
    end_s = time.thread_time() + cpu_ms / 1e3
    while time.thread_time() < end_s:
        hashlib.sha256(_BLOCK).digest()


def _flat(data: Any) -> list[float]:
    if isinstance(data, list):
        return [value for part in data for value in _flat(part)]
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise TypeError
    return [data]
