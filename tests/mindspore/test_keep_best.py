"""Keeping the best: what a checkpoint is judged by is what was measured of its very state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.store.opening import open_store

PROGRAM = Path(__file__).parent / "programs" / "best.py"
RULES = ["--keep-max", "1", "--keep-best", "2", "--keep-best-by", "known:max"]

pytestmark = pytest.mark.mindspore


def entries(folder, kind, *rules):
    """The checkpoints that a run of this kind ends with, oldest first."""
    root = folder / "run"
    words = ["--run-dir", root, "--no-encrypt", *rules, PROGRAM, kind]
    command = [sys.executable, "-m", "supervisor.command.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = RunDirectory(root, World()).read().run_id
    return list(reversed(open_store(root, World(), Sealing(), run_id).entries()))


def metric(entry):
    return entry.info.get("metrics", {}).get("known")


@pytest.mark.parametrize("kind", ["fit", "calls", "process"])
def test_each_evaluation_is_saved_and_the_best_stay(tmp_path, kind):
    """The states with the two best values are kept beside the newest: the second and the fourth epoch."""
    found = entries(tmp_path, kind, *RULES)
    best = {metric(entry): (entry.step, entry.manifest.reason) for entry in found if metric(entry)}
    assert best[0.9] == (16, "evaluation")
    assert best[0.8] == (32, "evaluation")
    assert found[-1].step == 40
    assert {entry.step for entry in found} == {16, 32, 40}
    assert all(0 < entry.info["loss"] < 10 for entry in found)


def test_a_loop_of_ones_own_reports(tmp_path):
    """report() inside of the loop: the loss of each step, the metric of the state that was evaluated."""
    found = entries(tmp_path, "custom")
    best = {entry.step: metric(entry) for entry in found if metric(entry)}
    assert (best[16], best[32]) == (pytest.approx(0.9), pytest.approx(0.8))
    assert {entry.step for entry in found} == {16, 32, 40}
    assert all(0 < entry.info["loss"] < 10 for entry in found)


@pytest.mark.parametrize("kind", ["other", "changed"])
def test_what_was_not_measured_of_this_state_does_not_count(tmp_path, kind):
    """An evaluation of another network, or of one that was changed since, says nothing of a checkpoint."""
    found = entries(tmp_path, kind, *RULES)
    assert [metric(entry) for entry in found] == [None]


def test_the_best_by_loss_and_the_grid(tmp_path):
    """Without metrics: the smallest loss of a saved step, the first at each multiple, and the newest."""
    # Without the mirror each save is waited for; with it, what comes while one is under way comes later.
    saving = ["--no-mirror", "--save-steps", "3"]
    rules = [*saving, "--keep-max", "1", "--keep-best", "1", "--keep-every-steps", "10"]
    found = entries(tmp_path, "fit", *rules)
    grid = {12, 21, 30}
    steps = {entry.step for entry in found}
    assert grid <= steps
    assert 40 in steps
    assert len(steps) <= len(grid) + 2
    best = min(found, key=lambda entry: entry.info["loss"])
    assert all(metric(entry) is None or entry.step == 40 for entry in found)
    assert best.step in steps
