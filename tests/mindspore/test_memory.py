"""Resuming from memory: what a killed worker has left in the mirror, put back without reading the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from survival import SEED, uninterrupted

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

PROGRAMS = Path(__file__).parent / "programs"

pytestmark = pytest.mark.mindspore


def run(folder: Path, program: str, *arguments: str, options=()) -> tuple[str, str, list[dict]]:
    """The last result line, everything that was said, and the journal."""
    folder.mkdir(exist_ok=True)
    RunDirectory(folder / "run", World()).open({"seed": SEED})
    ours = ["--run-dir", str(folder / "run"), "--no-encrypt", "--backoff", "0:0", *options]
    words = [str(PROGRAMS / program), *arguments, str(folder)]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    result = next(line for line in done.stdout.splitlines() if line.startswith("result "))
    journal = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    return result, said, journal


def events(journal, kind):
    return [line for line in journal if line["event"] == kind]


def test_two_networks_come_back_from_memory(tmp_path):
    """Killed while one network is trained, both come back, also the one that is asked for only later.

    By then the memory that both were in has been written many times over.
    """
    whole, _, _ = run(tmp_path / "whole", "two_networks.py", "never")
    result, said, journal = run(
        tmp_path / "killed", "two_networks.py", "SIGKILL", options=["--mirror-every", "1"]
    )
    assert result == whole, said
    resumed = events(journal, "resumed")
    assert [line["file"] for line in resumed] == ["memory"]
    # Eight steps each of the first two calls, and three of the third: the fourth was not over.
    assert resumed[0]["step"] == 19


@pytest.mark.parametrize("standby", ["--standby", "--no-standby"])
def test_a_killed_worker_repeats_only_the_step_it_was_in(tmp_path, standby):
    """No checkpoint on disk is due, and yet nothing completed is run again; a standby changes nothing."""
    options = ["--mirror-every", "1", standby]
    words = ["train", "graph", "SIGKILL@10"]
    result, said, journal = run(tmp_path / "killed", "train.py", *words, options=options)
    assert result == uninterrupted("train", "graph"), said
    steps = [int(line) for line in (tmp_path / "killed" / "steps").read_text().split()]
    # The callback of step 10 was still running when the process died.
    assert steps == [*range(1, 11), *range(10, 19)]
    saved = [(line["step"], line["reason"]) for line in events(journal, "saved")]
    assert saved == [(9, "killed"), (18, "end")]


def test_without_a_mirror_the_disk_is_gone_back_to(tmp_path):
    """--no-mirror: the worker commits by itself, and a killed one repeats the steps since its checkpoint."""
    options = ["--no-mirror", "--save-steps", "4"]
    _, _, journal = run(tmp_path / "killed", "train.py", "train", "graph", "SIGKILL@10", options=options)
    assert [line["step"] for line in events(journal, "resumed")] == [8]
    assert events(journal, "resumed")[0]["file"].endswith(".ckpt")
