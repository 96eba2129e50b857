"""Writes lines to a file descriptor from a thread of its own: its reader may be slow, and the event loop must not wait."""

from __future__ import annotations

import logging
import os
import queue
import threading
from typing import ClassVar

logger = logging.getLogger(__name__)


class LineWriter:
    """Hands lines to a thread that writes them; it starts with the first line.

    Lines beyond `most_waiting` are dropped; the proxy's log says how many.
    """

    most_waiting: ClassVar[int] = 10_000
    most_at_once: ClassVar[int] = 256

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def write(self, line: bytes) -> None:
        """Write a line, its end included, soon."""
        if self._lines.qsize() >= self.most_waiting:
            self._dropped += 1
            return
        self._lines.put(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
            self._thread.start()

    def close(self, patience_s: float = 10.0) -> None:
        """Return when all is written, or the patience is over. Nothing may be written after it."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join(patience_s)

    def _run(self) -> None:
        reported = 0
        ended = broken = False
        while not ended:
            lines = [self._lines.get()]
            while len(lines) < self.most_at_once and not self._lines.empty():
                lines.append(self._lines.get())
            ended = None in lines
            data = b"" if broken else b"".join(line for line in lines if line is not None)
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                logger.warning("request log: %s; no more lines are written", error)
                broken = True
            dropped = self._dropped
            if dropped > reported:
                logger.warning("request log: %d lines were dropped, nobody reads them fast enough", dropped - reported)
                reported = dropped
