"""What is put back beside the weights, what is refused, and what cannot be put back and is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from computed_once import computed_once

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

STEPS_PER_EPOCH = 8
PROGRAM = Path(__file__).parent / "programs" / "resume.py"
BETWEEN = PROGRAM.with_name("between.py")

pytestmark = pytest.mark.mindspore


def run(folder, kind, death, *options, status=0, key=("--no-encrypt",), program=PROGRAM):
    """The last result line, and everything that was said.

    Each step is held. At the default pace a due step may wait for a saver that is busy with the last one.
    """
    RunDirectory(folder / "run", World()).open({"seed": 11})
    ours = ["--run-dir", str(folder / "run"), "--save-steps", "5", "--backoff", "0:0", "--mirror-every", "1"]
    ours += [*key, *options]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, str(program), kind, death, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return next((line for line in done.stdout.splitlines() if line.startswith("result ")), ""), said


def outcome(kind, deaths, program=PROGRAM):
    """The result, everything that was said, and the steps that it resumed at, of one run for all tests."""

    def compute(folder):
        result, said = run(folder, kind, deaths, program=program)
        journal = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
        return result, said, [line["step"] for line in journal if line["event"] == "resumed"]

    return computed_once(f"{program} {kind} {deaths}", compute)


def uninterrupted(kind):
    return outcome(kind, "never")[0]


# Each death, and the steps that the run may resume at after it.
IN_A_STEP = {"exception@11": [10], "SIGKILL@20": [18, 19]}
AT_AN_EPOCHS_END = {"SIGKILL@epoch 1": [7, 8], "exception@epoch 2": [16]}


@pytest.mark.parametrize("death", ["exception", "SIGKILL"])
@pytest.mark.parametrize("kind", ["flips", "noise", "tail", "monitor", "asked"])
def test_everything_is_put_back(kind, death):
    """Random augmentations, an epoch's end with its evaluation, callbacks that count, a monitor of its own.

    The result is that of a run that never failed: parameters, optimizer, and what the callbacks have seen.
    """
    deaths = AT_AN_EPOCHS_END if kind == "tail" else IN_A_STEP
    result, said, resumed = outcome(kind, ",".join(deaths))
    assert result == uninterrupted(kind), said
    assert len(resumed) == len(deaths), said
    ((number, steps),) = [
        (number, steps) for number, (at, steps) in enumerate(deaths.items()) if at.startswith(death)
    ]
    assert resumed[number] in steps, said


# Where each kind dies: in a step of a call, which are counted from 0, or behind a call.
BETWEEN_CALLS = {
    "draws": "exception@2.5,SIGKILL@2.7",
    "changes": "exception@2.5,SIGKILL@2.7",
    "counts": "exception@behind 0,SIGKILL@behind 1,exception@2.5",
    "evaluates": "exception@2.5,SIGKILL@2.7",
    "last step": "exception@0.8,SIGKILL@1.8",
    "twice": "exception@behind 0,SIGKILL@1.5,SIGKILL@behind 1,exception@2.5",
}


@pytest.mark.parametrize("kind", BETWEEN_CALLS)
def test_what_a_script_does_between_its_calls_is_done_once(kind):
    """Its first calls are not made again, and what it draws and changes behind them comes out the same.

    However it dies: each run dies both of an exception and of SIGKILL.
    """
    result, said, resumed = outcome(kind, BETWEEN_CALLS[kind], BETWEEN)
    assert result == outcome(kind, "never", BETWEEN)[0], said
    assert len(resumed) == BETWEEN_CALLS[kind].count("@"), said


@pytest.mark.parametrize("death", ["exception", "SIGTERM", "SIGKILL"])
def test_what_is_swapped_in_at_an_epochs_end_is_not_what_was_trained(tmp_path, death):
    """Other weights for an evaluation, and a death with them: the run goes on from the step before it.

    Also where the step's own state would not have been copied.
    """
    result, said = run(tmp_path, "averaged", f"{death}@averaged 2", "--mirror-every", "7")
    assert result == uninterrupted("averaged"), said
    assert f"resumed at step {2 * STEPS_PER_EPOCH} " in said


def test_evaluations_in_a_loop_of_ones_own_are_made(tmp_path):
    """A loop that goes on in its middle evaluates again: no result of an earlier round is given out."""
    RunDirectory(tmp_path / "run", World()).open({"seed": 11})
    words = ["--run-dir", str(tmp_path / "run"), "--no-encrypt", "--backoff", "0:0", "--quiet"]
    program = [str(PROGRAM.with_name("judged_loop.py")), str(tmp_path)]
    command = [sys.executable, "-m", "supervisor.command.cli", *words, *program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("judged ")]
    told = {int(step): (number, own) for _, step, number, own in lines}
    assert list(told) == [0, 2, 4, 6, 8, 9]
    # The first one, before the loop, is not made again: its result stands in the record.
    assert told.pop(0) == ("1", "elsewhere")
    assert list(told.values()) == [(number, "here") for number in ("2", "3", "1", "2", "3")]


@pytest.fixture
def stopped(tmp_path):
    """A run that was given up after a callback of step 11 failed, with checkpoints."""
    saving = ("--save-steps", "9", "--mirror-every", "1")
    _, said = run(tmp_path, "plain", "exception@11", "--max-restarts", "0", *saving, status=1)
    assert "step 10 is safe on disk" in said.splitlines()[-1]
    return tmp_path


def checkpoints(folder):
    place = folder / "run" / "checkpoint" / "rank_0"
    return {path.name: path.read_bytes() for path in place.iterdir() if path.suffix in (".ckpt", ".manifest")}


def last_cause(folder):
    """The kind of the newest incident, as it was judged."""
    lines = map(json.loads, (folder / "run" / "journal.jsonl").read_text().splitlines())
    return [line["kind"] for line in lines if line["event"] == "incident_judged"][-1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wider", "'first.weight' has shape (7, 36), the checkpoint's has (6, 36)"),
        ("longer", "the dataset has 9 steps per epoch, the checkpoint was made with 8"),
    ],
)
def test_a_changed_script_is_refused(stopped, kind, words):
    """Another network, or number of steps: the first differences, status 65, and nothing is deleted."""
    before = checkpoints(stopped)
    _, said = run(stopped, kind, "never", status=65)
    assert words in said.splitlines()[-1]
    assert "--fresh --archive" in said.splitlines()[-1]
    assert said.count("attempt") <= 2
    assert last_cause(stopped) == "checkpoints do not fit"
    assert checkpoints(stopped) == before


def test_no_valid_checkpoint_is_never_from_zero(stopped):
    """Every checkpoint spoilt: status 65, each one named, all of them kept in the quarantine."""
    spoilt = checkpoints(stopped)
    for name, data in spoilt.items():
        if name.endswith(".ckpt"):
            path = stopped / "run" / "checkpoint" / "rank_0" / name
            path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    for _ in range(2):
        _, said = run(stopped, "plain", "never", status=65)
        last = said.splitlines()[-1]
        assert all(Path(name).stem in last for name in spoilt), said
    assert last_cause(stopped) == "checkpoints unusable"
    kept = {path.name for path in (stopped / "run" / "quarantine").iterdir()}
    assert set(spoilt) <= kept
    result, _ = run(stopped, "plain", "never", "--fresh", "--archive")
    assert result


def test_the_newest_valid_one_is_used(stopped):
    """The newest spoilt: it is set aside with a warning, the one before is used; the result is the same."""
    newest = stopped / "run" / "checkpoint" / "rank_0" / "CKP_rank_0-2_2_breakpoint.ckpt"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    result, said = run(stopped, "plain", "never")
    assert "resumed at step 9" in said
    assert newest.name in said
    assert (stopped / "run" / "quarantine" / newest.name).exists()
    assert result == uninterrupted("plain")


def test_another_key_is_refused(tmp_path):
    """Wrong key: status 65, nothing moved; with the right one the run goes on."""
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(os.urandom(32).hex())
        (tmp_path / name).chmod(0o600)
    right, wrong = (("--key-file", str(tmp_path / name)) for name in ("right", "wrong"))
    run(tmp_path, "plain", "exception@11", "--max-restarts", "0", status=1, key=right)
    before = checkpoints(tmp_path)
    _, said = run(tmp_path, "plain", "never", status=65, key=wrong)
    assert "were made with the key" in said
    assert checkpoints(tmp_path) == before
    result, _ = run(tmp_path, "plain", "never", key=right)
    assert result == uninterrupted("plain")
    tools = [sys.executable, "-m", "resilient.tools", "verify", str(tmp_path / "run")]
    done = subprocess.run([*tools, *right], capture_output=True, text=True)
    assert (done.returncode, "all ok" in done.stdout) == (0, True)
    done = subprocess.run([*tools, *wrong], capture_output=True, text=True)
    assert (done.returncode, "locked with another key" in done.stdout) == (1, True)
    assert "BAD" not in done.stdout


def test_the_checkpoints_of_a_run_are_listed(stopped):
    """resilient ls: newest first, with step, epoch and reason; --json has the same for programs."""
    command = [sys.executable, "-m", "resilient.tools", "ls", str(stopped / "run")]
    text = subprocess.run(command, capture_output=True, text=True)
    lines = subprocess.run([*command, "--json"], capture_output=True, text=True).stdout.splitlines()
    found = [(line["step"], line["epoch"], line["reason"]) for line in map(json.loads, lines)]
    assert found == [(10, 2, "exception"), (9, 2, "schedule")]
    assert text.returncode == 0
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["STEP", "10", "9"]
    nowhere = subprocess.run([*command[:-1], str(stopped)], capture_output=True, text=True)
    assert (nowhere.returncode, "is no run directory" in nowhere.stderr) == (64, True)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("dropout", "Dropout (in dropout) keeps its random stream in its kernel"),
        ("workers", "noisy draws random numbers in 2 workers of MapDataset"),
        (
            "both",
            "noisy of the validation data draws random numbers while the training's pipeline runs ahead",
        ),
        ("monitor", "the command line's policies are not used"),
    ],
)
def test_what_cannot_be_had_is_named_once(tmp_path, kind, words):
    """Dropout on CPU, a pipeline with several drawing workers, a monitor beside command-line policies."""
    _, said = run(tmp_path, kind, "never")
    assert sum(words in line for line in said.splitlines()) == 1, said


def test_a_stop_is_resumed_by_the_same_command(tmp_path):
    """The journal of two commands on one run: stopped is not complete, and the second one goes on."""
    run(tmp_path, "plain", "exception@11", "--max-restarts", "0", status=1)
    result, said = run(tmp_path, "plain", "never")
    assert result == uninterrupted("plain")
    assert "resumed at step 10" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "ended"] == [1, 0]
    _, said = run(tmp_path, "plain", "never")
    assert "is complete" in said
