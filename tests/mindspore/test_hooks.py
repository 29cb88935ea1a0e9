"""Callbacks in a process that goes on: every end comes behind its begin, and begins change nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "hooks.py"
MODES = Path(__file__).parent / "programs" / "modes.py"
DEADLINE_S = 200

pytestmark = pytest.mark.mindspore


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), done.stderr


def final(lines):
    return next(line for line in lines if line.startswith("FINAL"))


def events(path):
    """Lines of (process, callback, hook, mode, epoch, step, steps per epoch, settings of the context)."""
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def unopened(lines):
    """End hooks that run in a process in which their begin hook has not run before."""
    opened = set()
    for process, callback, hook, mode, epoch, *_ in lines:
        place = process, callback, hook.rpartition("_")[0], mode, epoch if "epoch" in hook else None
        if hook.endswith("begin"):
            opened.add(place)
        elif place not in opened:
            yield process, callback, hook, mode, epoch


def test_a_run_that_fails_in_every_kind_of_hook_ends_as_one_that_did_not(tmp_path):
    """The weights and the random numbers are the same bits, each end hook has had its begin hook in its own
    process, with the counters and the execution mode of a plain run, and no state and no step is blamed.

    It is killed in an evaluation, and in the end of the call. It fails twice in a resumed beginning, and in
    the middle of a step while a signal waits.
    """
    plain, _ = run([sys.executable, str(PROGRAM), str(tmp_path), "plain"])
    options = ["--run-dir", str(tmp_path / "run"), "--no-encrypt", "--backoff", "0:0", "--mirror-every", "3"]
    resumed, _ = run([sys.executable, "-m", "supervisor.command.cli", *options, str(PROGRAM), str(tmp_path)])
    wanted, seen = events(tmp_path / "plain"), events(tmp_path / "events")
    assert len({process for process, *_ in seen}) == 6
    assert list(unopened(seen)) == []
    counters = {line[1:] for line in wanted}
    # A call that goes on has its steps so far behind it when it begins.
    begins = ("begin", "on_train_begin")
    assert [line for line in seen if line[1:] not in counters and line[2] not in begins] == []
    journal = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert not [event for event in journal if event["event"] in ("shunned", "poison")]
    judged = [(e["kind"], e["step"], e["phase"]) for e in journal if e["event"] == "incident_judged"]
    assert judged[:3] == [
        ("killed", 8, "evaluating"),
        ("exception", 8, "beginning"),
        ("exception", 8, "beginning"),
    ]
    assert final(resumed) == final(plain)


def test_a_loop_goes_on_in_the_mode_it_had(tmp_path):
    """Also where the script has set another one, and where a loop that was finished is passed by."""
    options = ["--run-dir", str(tmp_path / "run"), "--no-encrypt", "--backoff", "0:0", "--mirror-every", "1"]
    command = [sys.executable, "-m", "supervisor.command.cli", *options, str(MODES), str(tmp_path)]
    said, told = run(command)
    steps = [line for line in said if line.startswith("step")]
    assert steps == ["step 0 in mode 1", *(f"step {n} in mode 0" for n in range(1, 16))]
    assert [line for line in said if line.startswith("between")] == ["between in mode 0"] * 2
    assert told.count("graph mode again, as it was in the state; it had PyNative mode") == 2
