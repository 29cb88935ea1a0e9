"""Something else has the name of a file of ours, or nearly nothing may be open: one line says what to do."""

from __future__ import annotations

import os
import resource

import pytest
from saver_process import SpawnedSaver
from slots import config_of
from supervised import DEADLINE_S

from resilient.wire.messages import TakeOver

pytestmark = pytest.mark.process


def make(path, kind):
    """Puts something that is no file, or no folder, under this name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("no folder\n")


@pytest.mark.parametrize("kind", ["directory", "pipe"])
@pytest.mark.parametrize("name", ["lock", "run.json", "journal.jsonl"])
def test_a_run_that_cannot_be_opened_says_why(supervise, tmp_path, name, kind):
    """64, the name, and what to do; nothing waits for the other end of a pipe."""
    make(tmp_path / "run" / name, kind)
    run = supervise("print('trained')\n")
    assert run.end() == 64, run.err()
    assert f"{name}: " in run.err()
    assert "something else has this name: move it away" in run.err()
    assert "Traceback" not in run.err()


@pytest.mark.parametrize(
    ("name", "kind"), [("trials.json", "directory"), ("trials.json", "pipe"), ("logs", "file")]
)
def test_a_run_that_can_do_without_goes_on(supervise, tmp_path, name, kind):
    """One line names a thing in the way of a log or of the trials; the training runs."""
    make(tmp_path / "run" / name, kind)
    run = supervise("print('trained')\n")
    assert run.end() == 0, run.err()
    assert name in run.err()
    assert "Traceback" not in run.err()


@pytest.mark.parametrize(
    ("name", "kind"), [(".rank_0.lock", "directory"), (".rank_0.lock", "pipe"), ("quarantine", "file")]
)
def test_a_saver_says_what_is_in_its_way(tmp_path, name, kind):
    """Its answer names it and what to do, and it lives on."""
    make(tmp_path / name, kind)
    saver = SpawnedSaver(config_of(tmp_path))
    try:
        error = saver.ask(TakeOver()).error
        assert name in error
        assert "move it away" in error
        assert saver.end() == (0, "")
    finally:
        saver.clear_away()


# What a training does first, and a script that catches everything.
OPENING = """
from resilient.worker.session import session; from resilient.policy import settings
try:
    place = session.current().open(settings.Settings())
    session.current().recover(place)
except Exception as error:
    print("caught", error)
print("trained")
"""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".rank_0.lock", "directory"),
        (".rank_0.lock", "pipe"),
        ("quarantine", "file"),
        ("checkpoint", "file"),
        ("checkpoint/rank_0", "file"),
    ],
)
def test_a_training_that_finds_something_in_its_way_ends_the_run_at_once(supervise, tmp_path, name, kind):
    """64 after one attempt: one line with the name and what to do, no traceback, and no training, whatever
    the script catches.
    """
    make(tmp_path / "run" / name, kind)
    run = supervise(OPENING)
    assert run.end() == 64, run.err()
    (last,) = (line for line in run.err().splitlines() if "move it away" in line)
    assert name in last
    assert "something else has this name" in last
    assert "Traceback" not in run.err()
    assert "attempt 2" not in run.err()
    assert "trained" not in run.out()
    assert "caught" not in run.out()


@pytest.mark.parametrize("most", [16, 40])
def test_too_few_descriptors_are_refused_at_the_start(supervise, most):
    """64, with the limit to set."""
    run = supervise(
        "print('trained')\n", before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    )
    run.process.wait(DEADLINE_S)
    assert run.end() == 64, run.err()
    assert f"only {most} files may be open at once" in run.err()
    assert "ulimit -n" in run.err()
