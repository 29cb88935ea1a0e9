"""What a worker tells of itself while it trains, and what it does when it is asked to."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "phases.py"

pytestmark = pytest.mark.mindspore

IMPORTED = [("before the import", "SCRIPT", 1), ("after the import", "SCRIPT", 1)]
TRAINED = [("training", "COMPILING", 1), ("callback", "CALLBACKS", 1)]
AGAIN = [("training", "STEP", 1), ("callback", "CALLBACKS", 1)]
EVALUATED = [("evaluation", "COMPILING", 1), ("evaluation", "EVALUATING", 7)]
OVER = [("after", "SCRIPT", 1), ("at exit", "OVER", 1)]


def run(folder: Path, api: str):
    """Where the program looked and what it saw, equal ones in a row counted, and the samples by phase."""
    options = ["--run-dir", str(folder / "run"), "--no-encrypt", "--mirror-every", "1"]
    command = [sys.executable, "-m", "supervisor.command.cli", *options, str(PROGRAM), api]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"seen"')))
    seen = [(*look, len(list(same))) for look, same in groupby(map(tuple, told["seen"]))]
    return seen, told["samples"]


def test_an_evaluation_of_fit_is_no_step(tmp_path):
    """Import, the first step, steps, callbacks, the evaluation and the end are told apart."""
    seen, samples = run(tmp_path, "fit")
    ends = [("end of epoch", "SCRIPT", 1)]
    assert seen == [*IMPORTED, *TRAINED, *(AGAIN * 7), *EVALUATED, *ends, *OVER]
    counts = {name: samples[name] for name in ("IMPORTING", "COMPILING", "STEP", "CALLBACKS", "EVALUATING")}
    # Of an evaluation: its beginning, after its first step, its steps 2 to 8.
    assert counts == {"IMPORTING": 1, "COMPILING": 2, "STEP": 7, "CALLBACKS": 8, "EVALUATING": 9}
    assert samples["DATA"] >= 8
    assert samples["SAVING"] >= 1


def test_an_evaluation_between_calls(tmp_path):
    """``Model.eval`` of the script's own: its first step compiles, and afterwards it is the script's turn."""
    seen, _ = run(tmp_path, "calls")
    ends = [("end of epoch", "SCRIPT", 1), ("between", "SCRIPT", 1)]
    assert seen == [*IMPORTED, *TRAINED, *(AGAIN * 7), *ends, *EVALUATED, *OVER]


def test_an_evaluation_out_of_a_callback(tmp_path):
    """It is an evaluation, and not a callback that hangs; after it the callback goes on."""
    seen, _ = run(tmp_path, "callback")
    evaluated = [*EVALUATED, ("callback", "CALLBACKS", 1)]
    ends = [("end of epoch", "SCRIPT", 1)]
    assert seen == [*IMPORTED, *TRAINED, *(AGAIN * 2), *evaluated, *(AGAIN * 5), *ends, *OVER]


def test_a_loop_of_ones_own(tmp_path):
    """The body of the loop is a step; only the first may compile."""
    seen, samples = run(tmp_path, "custom")
    steps = [("training", "COMPILING", 1), ("training", "STEP", 15)]
    assert seen == [*IMPORTED, *steps, *OVER]
    assert (samples["COMPILING"], samples["STEP"], samples["CALLBACKS"]) == (1, 15, 16)
