"""Real trainings that fail: why is told rightly, and what follows brings them to the end all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from computed_once import computed_once

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

PROGRAM = Path(__file__).parent / "programs" / "causes.py"
SEED = 20_26
STOPPED = 75
DEADLINE_S = 120

pytestmark = pytest.mark.mindspore


class Run:
    """A supervised training in a folder; its standard error goes into a file. ``started`` are all of them."""

    started: ClassVar[list[Run]] = []

    def __init__(self, folder: Path, kind: str, *options: str, glog: str = "3") -> None:
        self.folder = folder
        if not (folder / "run").exists():
            RunDirectory(folder / "run", World()).open({"seed": SEED})
        words = ["--run-dir", str(folder / "run"), "--no-encrypt", "--backoff", "0:0", "--mirror-every", "1"]
        command = [
            sys.executable,
            "-m",
            "supervisor.command.cli",
            *words,
            *options,
            str(PROGRAM),
            kind,
            str(folder),
        ]
        self.out = ""
        self.started.append(self)
        with open(folder / "err", "ab") as err:
            self._process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=err, env={**os.environ, "GLOG_v": glog}
            )

    def wait_for(self, line: str) -> None:
        """Returns when this line has come; the test's own timeout is the deadline."""
        while (said := self._process.stdout.readline().decode()).strip() != line:
            assert said, f"{line!r} did not come:\n{self.err}"
            self.out += said

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Its exit status; after it, no process of the run is alive."""
        rest, _ = self._process.communicate(timeout=DEADLINE_S)
        self.out += rest.decode()
        assert alive(self.folder) == [], self.err
        return self._process.returncode

    def clear_away(self) -> None:
        """Leaves nothing behind where a test has failed."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def result(self) -> str:
        return [line for line in self.out.splitlines() if line.startswith("result ")][-1]

    def events(self, name: str) -> list[dict]:
        lines = (self.folder / "run" / "journal.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def log(self) -> str:
        return (self.folder / "run" / "logs" / "attempt_0001" / "rank_0.log").read_text()


@pytest.fixture(autouse=True)
def nothing_left():
    """A training whose test has failed ends with it; its worker dies with its supervisor."""
    yield
    while Run.started:
        Run.started.pop().clear_away()


def alive(folder: Path) -> list[psutil.Process]:
    """Processes of the run in this folder: all work in it, dataset workers and savers among them."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def reference(kind: str) -> str:
    """The result of a run that never fails."""

    def compute(folder: Path) -> str:
        run = Run(folder, kind)
        assert run.end() == 0, run.err
        return run.result

    return computed_once(f"causes.py {kind}", compute)


def finish(folder, kind, *options, status=0, **more):
    """Runs to the end; with status 0 the parameters are those of a run that never failed."""
    run = Run(folder, kind, *options, **more)
    assert run.end() == status, run.err
    if status == 0:
        assert run.result == reference("never")
    return run


def kinds(run):
    return [event["kind"] for event in run.events("incident_judged")]


def resumed(run):
    return [event["step"] for event in run.events("resumed")]


@pytest.mark.parametrize(
    ("kind", "glog", "how"),
    [("map", "3", "SIGKILL"), ("map", "4", "SIGKILL"), ("generator_exit", "3", "status 3")],
)
def test_a_dead_process_of_the_dataset_is_named(tmp_path, kind, glog, how):
    """Whether or not MindSpore's log tells of it, and also where the training waits for what it had to do."""
    run = finish(tmp_path, kind, glog=glog)
    assert kinds(run) == ["dataset worker died", "finished"]
    cause = run.events("incident_judged")[0]["cause"]
    assert cause.startswith("a process of the dataset's died")
    assert how in cause or glog == "4"
    assert cause in run.err


def test_a_kill_from_outside_is_no_dead_process_of_the_dataset(tmp_path):
    """SIGTERM, while such processes are at work and well."""
    run = finish(tmp_path, "terminated")
    assert kinds(run) == ["killed", "finished"]
    assert resumed(run) == [6]


def test_a_loss_that_is_no_number_is_gone_back_from(tmp_path):
    """To the newest state whose loss was one; with the cause gone the run ends as if nothing had been."""
    run = finish(tmp_path, "nan")
    assert kinds(run) == ["numerical", "finished"]
    # A callback found it, so the run resumes from the state held before that step.
    assert resumed(run) == [10]
    assert run.events("shunned")[0]["step"] == 11


def test_a_loss_that_is_no_number_again_and_again_ends_the_run(tmp_path):
    """Each attempt goes on from an older state whose loss was finite; after three the reason is given."""
    run = finish(tmp_path, "nan_always", "--save-steps", "4", status=1)
    assert kinds(run) == ["numerical"] * 3
    first, second = resumed(run)
    assert first == 10 > second >= 4
    last = run.err.splitlines()[-1]
    assert "loss is NAN or INF" in last
    assert "step 11 has failed three times in the same way" in last
    # Whoever tries again does not go on from a state without numbers in it either.
    (tmp_path / "again").touch()
    assert resumed(finish(tmp_path, "nan")) == [first, second, 10]


def test_a_poisoned_step_is_given_up(tmp_path):
    """Once more from the step before it, once from an older state, and no fourth time."""
    run = finish(tmp_path, "poison_always", "--save-steps", "4", status=1)
    assert kinds(run) == ["exception"] * 3
    first, second = resumed(run)
    assert first == 10 > second >= 4
    assert "this batch is poison; step 11 has failed three times" in run.err.splitlines()[-1]


def test_a_poisoned_step_with_nothing_older_has_its_third_try_too(tmp_path):
    """There is one checkpoint only: the run resumes from it once more, and the third failure is the end."""
    run = finish(tmp_path, "poison_always", status=1)
    assert kinds(run) == ["exception", "exception", "nothing older to go back to", "exception"]
    assert resumed(run) == [10, 10]
    assert "there is no older state: the same one is tried again" in run.err
    assert "this batch is poison; step 11 has failed three times" in run.err.splitlines()[-1]


def test_a_poisoned_step_can_end_the_run_at_once(tmp_path):
    """--on-poison stop: the second time is the last."""
    run = finish(tmp_path, "poison_always", "--on-poison", "stop", status=1)
    assert kinds(run) == ["exception"] * 2
    assert "--on-poison stop" in run.err.splitlines()[-1]


def test_a_poisoned_batch_can_be_left_out(tmp_path):
    """The parameters, the optimizer's count of steps among them, are those of a training without it."""
    run = Run(tmp_path, "poison_always", "--on-poison", "skip-batch")
    assert run.end() == 0, run.err
    assert run.result == reference("left_out")
    assert run.result != reference("never")
    assert resumed(run) == [10, 10]
    assert [(event["step"], event["action"]) for event in run.events("poison")] == [(11, "skip-batch")]
    assert [event["step"] for event in run.events("skipped")] == [11]


def test_a_state_that_kills_whoever_goes_on_from_it_is_walked_past(tmp_path):
    """The second death on it sets it aside; the next older state brings the run to its end."""
    run = finish(tmp_path, "bad_state", "--save-steps", "4")
    assert kinds(run) == ["killed", "exited", "exited", "finished"]
    first, second, third = resumed(run)
    assert first == second == 10 > third >= 4
    assert [event["step"] for event in run.events("shunned")] == [10]


@pytest.mark.parametrize(("kind", "where"), [("sleep", "pause"), ("lock", "hold_the_lock")])
def test_a_hang_is_ended_with_its_stacks_in_the_log(tmp_path, kind, where):
    """It answers neither to SIGTERM; the next attempt goes on from what was in memory."""
    run = finish(tmp_path, kind, "--hang-timeout", "3", "--grace", "2")
    assert kinds(run) == ["hang", "finished"]
    assert resumed(run) == [5]
    assert run.events("hang")[0]["phase"] == "callbacks"
    assert f"in {where}" in run.log()


def test_a_stopped_training_is_woken(tmp_path):
    """Somebody's SIGSTOP: it goes on by itself, and no attempt is lost."""
    run = finish(tmp_path, "stopped", "--hang-timeout", "3", "--grace", "2")
    assert kinds(run) == ["finished"], run.err
    assert [event["stopped"] for event in run.events("hang")] == [True]


@pytest.mark.parametrize(
    ("kind", "phase", "step"),
    [("compiling", "compiling", 16), ("evaluating", "evaluating", 8), ("long_step", "step", 10)],
)
def test_a_stop_in_the_middle_of_something_long_leaves_a_checkpoint(tmp_path, kind, phase, step):
    """The newest completed step is committed before the grace is over; the same command completes the run."""
    run = Run(tmp_path, kind, "--grace", "8")
    run.wait_for("here")
    run.send(signal.SIGTERM)
    assert run.end() == STOPPED, run.err
    check = subprocess.run(
        [sys.executable, "-m", "resilient.tools", "verify", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert f"step {step} is safe on disk" in run.err.splitlines()[-1]
    assert run.events("saved")[-1]["step"] == step
    # It was in the middle until it was killed, right before the grace was over.
    assert [event["phase"] for event in run.events("incident_judged")] == [phase]
    assert len(run.events("killed")) == 1
    (tmp_path / "again").touch()
    again = Run(tmp_path, kind, "--grace", "8")
    assert again.end() == 0, again.err
    assert resumed(again) == [step]
    assert again.result == reference("never")
