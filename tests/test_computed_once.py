"""A result that several tests look at is computed once, by one of the processes that run the tests."""

import os
import subprocess
import sys

import computed_once
import pytest

# Each computation leaves a line; its result is how many there are.
PROGRAM = """
import sys
from pathlib import Path
from computed_once import computed_once
log = Path(sys.argv[1])

def compute(folder):
    with log.open("a") as lines:
        lines.write("computed\\n")
    return len(log.read_text().splitlines())

print([computed_once(f"result {n}", compute) for n in range(20)])
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The results of these tests are kept in a folder of their own."""
    monkeypatch.setenv(computed_once.PLACE, str(tmp_path))
    return tmp_path


def test_several_processes_compute_it_once(place):
    """All at once: one computes each result, the others wait and read what it has written."""
    command = [sys.executable, "-c", PROGRAM, str(place / "log")]
    support = {**os.environ, "PYTHONPATH": os.path.dirname(computed_once.__file__)}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=support) for _ in range(4)]
    said = {process.communicate(timeout=60)[0] for process in started}
    assert len(said) == 1
    assert (place / "log").read_text() == "computed\n" * 20


def test_an_error_is_not_kept(place):
    """The next test computes it again, in an empty folder."""

    def fail(folder):
        (folder / "left").touch()
        raise RuntimeError("once")

    with pytest.raises(RuntimeError):
        computed_once.computed_once("one", fail)
    assert computed_once.computed_once("one", lambda folder: list(folder.iterdir())) == []
