"""The output of a worker on its way to the log: nothing that fails there holds the worker up."""

from __future__ import annotations

import os

from played import fail

from supervisor.group import worker_output


def test_a_log_that_fails_in_any_way_does_not_keep_the_worker_from_speaking(tmp_path):
    """Its output is read on: a pipe that nobody reads would hold it up for ever."""
    reading, writing = os.pipe()
    said = []
    log = worker_output.OutputLog(tmp_path / "log", said.append)
    pump = worker_output.OutputPump(os.fdopen(reading, "rb", buffering=0), None, log)
    fail(log, "write", MemoryError(), lasting=True)
    pump.start()
    # Several times what the kernel keeps.
    for _ in range(20):
        os.write(writing, b"x" * 65536)
    os.close(writing)
    pump.finish(60.0)
    assert not pump.reading
    assert said == ["some of the output is lost: MemoryError: "]
