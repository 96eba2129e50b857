"""Lines reach their reader in order; whoever writes never waits for it."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from knative_sponge.proxy.knative.line_writer import LineWriter


def reading_all(descriptor: int) -> tuple[threading.Thread, list[bytes]]:
    """A thread that reads to the end, and where it puts what it read."""
    found: list[bytes] = []

    def read() -> None:
        with open(descriptor, "rb") as stream:
            found.append(stream.read())

    thread = threading.Thread(target=read)
    thread.start()
    return thread, found


def test_lines_arrive_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    lines = [b"%d %b\n" % (number, b"x" * (number % 97)) for number in range(5000)]
    reader, found = reading_all(reading)
    writer = LineWriter(writing)
    for line in lines:
        writer.write(line)
    writer.close()
    os.close(writing)
    reader.join()
    assert found == [b"".join(lines)]


class Small(LineWriter):
    most_waiting = 10
    most_at_once = 1


def test_a_reader_that_does_not_read_costs_lines_but_no_time(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    line = b"x" * 4095 + b"\n"
    writer = Small(writing)
    for _ in range(1000):  # far more than a pipe holds: a writer that waited would wait for ever
        writer.write(line)
    reader, found = reading_all(reading)
    with caplog.at_level(logging.WARNING):
        writer.close()
    os.close(writing)
    reader.join()
    lost = 1000 - len(found[0]) // 4096
    assert len(found[0]) % 4096 == 0
    assert lost > 0
    assert sum(int(record.message.split()[2]) for record in caplog.records) == lost


def test_a_reader_that_is_gone_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            writer.write(b"x\n")
        writer.close()
    assert [record.message for record in caplog.records] == [
        "request log: [Errno 32] Broken pipe; no more lines are written"
    ]
    os.close(writing)


def test_nothing_is_started_for_nothing() -> None:
    before = threading.active_count()
    LineWriter(1).close()
    assert threading.active_count() == before
