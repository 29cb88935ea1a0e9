"""Scripts made up at random, each killed once or more often: they end as if nothing had happened.

A few here; RANDOM_SCRIPTS=200 tries more, RANDOM_FIRST=1000 others (``make scripts``).
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

PROGRAM = Path(__file__).parent / "programs" / "random_script.py"
DEATHS = [
    "SIGKILL",
    "SIGTERM",
    "exception",
    "exit",
    "SIGTERM+exception",
    "exception+SIGTERM",
    "exception+SIGKILL",
]
WAYS = [
    ["--mirror-every", "1"],
    ["--no-mirror"],
    ["--mirror-every", "3", "--save-steps", "5"],
    ["--mirror-every", "10"],
    ["--standby", "--mirror-slots", "2"],
]
DIVERGED = re.compile(r"giving up: the worker ended after step \d+: [^;]*loss is NAN or INF[^;]*;")
COUNT = int(os.environ.get("RANDOM_SCRIPTS", "8"))
FIRST = int(os.environ.get("RANDOM_FIRST", "0"))

pytestmark = [pytest.mark.mindspore, pytest.mark.campaign]


def deaths_of(seed):
    """One death, or two; each seed of a few dies in a way of its own."""
    rng = random.Random(seed)
    return [DEATHS[seed % len(DEATHS)], *rng.choices(DEATHS, k=rng.randrange(2))]


def run(folder, seed, deaths):
    """How the run ended (its result, or where the training diverged), and all output."""
    folder.mkdir()
    RunDirectory(folder / "run", World()).open({"seed": 11})
    ours = ["--run-dir", str(folder / "run"), "--no-encrypt", "--backoff", "0:0", *WAYS[seed % len(WAYS)]]
    command = [
        sys.executable,
        "-m",
        "supervisor.command.cli",
        *ours,
        str(PROGRAM),
        str(seed),
        deaths,
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return next(line for line in done.stdout.splitlines() if line.startswith("result ")), said
    diverged = DIVERGED.search(said)
    assert diverged is not None, said
    return diverged[0], said


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_random_script_ends_as_if_nothing_had_happened(tmp_path, seed):
    """Every network, every optimizer, all other state, every callback, and everything it drew on its way.

    A few of these scripts diverge by themselves (seed 52): then the same step does, whatever the run died of.
    """
    result, said = run(tmp_path / "struck", seed, ",".join(deaths_of(seed)))
    assert result == run(tmp_path / "whole", seed, "never")[0], said
