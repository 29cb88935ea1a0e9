"""Runs of programs/train.py: each is made once, for all the tests that look at it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from computed_once import computed_once

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

PROGRAM = Path(__file__).parent / "programs" / "train.py"
SEED = 20_26
# Each step is kept: by default only as many as cost little, and these take a millisecond.
EACH_STEP = ("--save-steps", "4", "--mirror-every", "1")


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the hash at its end, the steps that were completed, in order, those that it resumed
    at, and all that was said."""

    result: str
    steps: list[int]
    resumed: list[int]
    said: str


def run(folder: Path, api: str, mode: str, deaths: str, *options: str) -> Outcome:
    """A run in this folder, to its end."""
    RunDirectory(folder / "run", World()).open({"seed": SEED})
    ours = ["--run-dir", str(folder / "run"), "--no-encrypt", "--backoff", "0:0", "--max-restarts", "20"]
    words = [*ours, *options, str(PROGRAM), api, mode, deaths, str(folder)]
    command = [sys.executable, "-m", "supervisor.command.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    result = [line for line in done.stdout.splitlines() if line.startswith("result ")][-1]
    steps = [int(line) for line in (folder / "steps").read_text().split()]
    journal = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    return Outcome(result, steps, [line["step"] for line in journal if line["event"] == "resumed"], said)


def outcome(api: str, mode: str, deaths: str) -> Outcome:
    """Of a run that dies these deaths."""
    name = f"{PROGRAM} {api} {mode} {deaths}"
    return Outcome(**computed_once(name, lambda folder: asdict(run(folder, api, mode, deaths, *EACH_STEP))))


def uninterrupted(api: str, mode: str) -> str:
    """The hash of a run that never fails."""
    return outcome(api, mode, "never").result
