"""Several directories in one script, and a script that tries again by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mindspore as ms
import pytest
from computed_once import computed_once
from mindspore import nn
from small import SmallNetwork, assert_equal, dataset, files, model, values

import resilient
from resilient import CheckpointMonitor
from resilient.errors import BusyError, UsageError
from resilient.host.files import DiskFiles
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.saving.in_process import Committer
from resilient.store import layout

PROGRAMS = Path(__file__).parent / "programs"
STEPS_PER_EPOCH = 8
RANK = "checkpoint/rank_0"

pytestmark = pytest.mark.mindspore


def run(folder, program, *arguments, options=(), status=0):
    """The result, and everything that was said."""
    RunDirectory(folder / "run", World()).open({"seed": 11})
    ours = ["--run-dir", str(folder / "run"), "--save-steps", "4", "--backoff", "0:0", "--no-encrypt"]
    script = [str(PROGRAMS / program), *arguments, str(folder)]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, *options, *script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return next((line for line in done.stdout.splitlines() if line.startswith("result ")), ""), said


class Failure(Exception):
    """The loop's own."""


class Loop:
    """A custom loop over new cells, which fails in a step if it is asked to."""

    def __init__(self, directory):
        ms.set_seed(5)
        self.network = SmallNetwork()
        self.optimizer = nn.Adam(self.network.trainable_params(), 1e-2)
        loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        weights = self.optimizer.parameters
        self._step_of = ms.value_and_grad(lambda x, y: loss(self.network(x), y), None, weights)
        self._directory = directory

    def train(self, fatal_step=None, epochs=2):
        """The steps that were begun."""
        steps = []
        cells = self.network, self.optimizer
        with resilient.training(*cells, directory=self._directory, save_steps=100) as run:
            for images, labels in run.steps(dataset(), epochs=epochs):
                steps.append(run.step + 1)
                _, gradients = self._step_of(images, labels)
                self.optimizer(gradients)
                if steps[-1] == fatal_step:
                    raise Failure
        return steps

    def fail(self, step):
        with pytest.raises(Failure):
            self.train(step)

    def weights(self):
        return {**values(self.network), **values(self.optimizer)}


@pytest.fixture
def undisturbed(plain):
    """The weights of a loop that never fails."""
    loop = Loop("undisturbed")
    loop.train()
    return loop.weights()


# In a plain process


def test_each_monitor_saves_in_its_own_directory(plain):
    """One after the other, and both in one call."""
    first, second = (CheckpointMonitor(directory=name, save_checkpoint_steps=4) for name in ("a", "b"))
    trained = model()
    trained.train(1, dataset(), callbacks=[first])
    trained.train(1, dataset(), callbacks=[second])
    assert [files(f"{name}/checkpoint/rank_0") for name in ("a", "b")] == [
        ["CKP_rank_0-1_4.ckpt", "CKP_rank_0-1_8.ckpt"]
    ] * 2
    trained.train(1, dataset(), callbacks=[first, CheckpointMonitor(directory="b", save_checkpoint_steps=8)])
    assert "CKP_rank_0-2_4.ckpt" in files("a/checkpoint/rank_0")
    assert files("b/checkpoint/rank_0")[-1] == "CKP_rank_0-2_8.ckpt"


def test_two_monitors_of_one_call_share_a_directory(plain, monkeypatch):
    """Each has its last checkpoint, though the disk is slow, and of what waits for it the newest stays."""
    commit = Committer.commit

    def slowly(committer, snapshot):
        time.sleep(0.05)
        return commit(committer, snapshot)

    monkeypatch.setattr(Committer, "commit", slowly)
    saves = [CheckpointMonitor(name, "a", keep_checkpoint_max=50, async_save=True) for name in ("A", "B")]
    model().train(1, dataset(), callbacks=saves)
    assert {"A_rank_0-1_8.ckpt", "B_rank_0-1_8.ckpt"} <= set(files("a/checkpoint/rank_0"))


def test_a_directory_that_a_supervised_run_saves_in_is_refused(plain):
    """Its run has another lock, elsewhere; whoever commits here is named."""
    Path("a").mkdir()
    lock = DiskFiles().lock(layout.rank_lock(Path("a"), 0), str(os.getpid()).encode())
    with pytest.raises(BusyError, match=f"process {os.getpid()} "):
        Loop("a").train()
    lock.release()
    assert Loop("a").train() == list(range(1, 17))


@pytest.mark.parametrize("key", [None, bytes(range(1, 17))], ids=["no key", "another"])
def test_a_directory_has_one_key(plain, key):
    """A second monitor with another one is refused, by whatever name it calls the directory."""
    Path("link").symlink_to("a")
    trained = model()
    trained.train(1, dataset(), callbacks=[CheckpointMonitor(directory="a", enc_key=bytes(16))])
    before = values(trained.train_network)
    with pytest.raises(UsageError, match="another key"):
        trained.train(1, dataset(), callbacks=[CheckpointMonitor(directory="link", enc_key=key)])
    assert_equal(values(trained.train_network), before)


def test_entries_that_are_tensors_end_nothing(plain):
    """Two monitors whose settings are compared, with a Tensor among their entries."""
    trained = model()
    for _ in range(2):
        entries = [{"scale": ms.Tensor([1.0, 2.0])}]
        saves = CheckpointMonitor(directory="a", append_info=entries, save_checkpoint_steps=4)
        trained.train(1, dataset(), callbacks=[saves])
    assert "CKP_rank_0-2_8.ckpt" in files("a/checkpoint/rank_0")


def test_what_is_in_the_way_once_is_not_in_the_way_for_ever(plain):
    """An error while a directory is opened, mended in the same process."""
    Path("a").mkdir()
    Path("a/run.json").write_text("no JSON")
    with pytest.raises(resilient.errors.ResilientError, match=r"run\.json"):
        Loop("a").train()
    Path("a/run.json").unlink()
    assert Loop("a").train() == list(range(1, 17))


def test_every_directory_resumes_by_itself(plain, undisturbed):
    """Two trainings of one process; in another process each goes on where it was."""
    Loop("a").train()
    Loop("b").fail(6)
    plain()
    assert Loop("a").train() == []
    second = Loop("b")
    assert second.train() == list(range(6, 17))
    assert_equal(second.weights(), undisturbed)


def test_the_first_directory_need_not_come_first_again(plain, undisturbed):
    """Each is a run of its own: what the process has done elsewhere does not matter to it."""
    Loop("a").train()
    Loop("b").fail(6)
    plain()
    second = Loop("b")
    assert second.train() == list(range(6, 17))
    assert_equal(second.weights(), undisturbed)


def test_a_loop_that_is_tried_again_goes_on(plain, undisturbed):
    """By the same script, with the same cells; also when it fails again."""
    loop = Loop("a")
    loop.fail(6)
    loop.fail(11)
    assert loop.train() == list(range(11, 17))
    assert_equal(loop.weights(), undisturbed)


def test_a_loop_that_fails_before_its_first_step_is_begun_again(plain, undisturbed):
    """There is nothing to go back to, and nothing in the way."""
    loop = Loop("a")
    loop.fail(1)
    ms.set_seed(5)
    again = Loop("a")
    assert again.train() == list(range(1, 17))
    assert_equal(again.weights(), undisturbed)


def test_a_second_loop_that_is_tried_again_does_not_undo_the_first(plain):
    """It begins with what the first one has come to, though nothing of its own was saved."""
    loop = Loop("a")
    loop.train()
    before = loop.weights()
    loop.fail(STEPS_PER_EPOCH * 2 + 1)
    assert loop.train() == list(range(17, 33))
    again = Loop("b")
    again.train()
    assert_equal(before, again.weights())
    again.train()
    assert_equal(loop.weights(), again.weights())


def test_another_training_after_one_that_failed_is_another(plain):
    """A script may catch the failure and train something else in the same directory."""
    Loop("a").fail(6)
    other = Loop("a")
    assert len(other.train()) == 16


def test_a_person_who_runs_it_again_goes_on(plain, undisturbed, monkeypatch):
    """In a notebook the cells are made anew; it is the same training all the same."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    Loop("a").fail(6)
    again = Loop("a")
    assert again.train() == list(range(6, 17))
    assert_equal(again.weights(), undisturbed)


# Under the supervisor


# In each of the three calls; they begin with the steps 1, 9 and 25.
DEATHS = [f"{death}@{call}.{step}" for call in range(3) for death, step in (("SIGKILL", 6), ("exception", 7))]
BEFORE = (0, 8, 24)


def run_with_two_directories(deaths, *options):
    """The result, all that was said, the steps that it resumed at, and the files in each directory."""

    def compute(folder):
        result, said = run(folder, "places.py", "3", deaths, options=options)
        journal = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
        # In its second directory an attempt finds a newer state than in the first one.
        resumed = {line["attempt"]: line["step"] for line in journal if line["event"] == "resumed"}
        found = {name: files(folder / name / RANK) for name in ("first", "second")}
        return result, said, list(resumed.values()), found

    return computed_once(f"places.py {deaths} {options}", compute)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("options", [(), ("--no-mirror",)], ids=["mirror", "no mirror"])
def test_a_run_with_two_directories_is_resumed(death, options):
    """Each call's checkpoints are where its monitor says, and the newest state is found wherever it is."""
    undisturbed, _, _, wanted = run_with_two_directories("never")
    result, said, resumed, found = run_with_two_directories(",".join(DEATHS), *options)
    assert result == undisturbed, said
    for name, there in wanted.items():
        assert set(there) <= set(found[name])
    number = DEATHS.index(death)
    assert len(resumed) == len(DEATHS), said
    # Each fourth step is saved, and the last complete one where there was time for it.
    newest = [BEFORE[number // 2] + step for step in ((4, 5), (6,))[number % 2]]
    assert resumed[number] in newest, said


@pytest.mark.parametrize("kind", ["model", "loop"])
def test_a_script_that_tries_again_is_resumed_in_its_second_try(tmp_path, kind):
    """It is the same call: the script that is run again makes it once."""
    result, said = run(tmp_path, "retried.py", kind, "killed")
    assert result == tried_again(kind), said


def tried_again(kind):
    """The result of a script that fails once and tries again by itself, and is not killed."""
    return computed_once(f"retried.py {kind}", lambda folder: run(folder, "retried.py", kind, "alone")[0])


def test_a_loop_that_is_tried_again_under_the_supervisor_loses_nothing(tmp_path):
    """It ends as one that never failed."""
    assert tried_again("loop") == run(tmp_path, "retried.py", "loop", "never")[0]


@pytest.mark.parametrize("calls", [1, 0])
def test_a_script_that_no_longer_comes_to_its_training_is_not_complete(tmp_path, calls):
    """It ends with status 0 before it has reached the call that it was killed in: that is no success."""
    said = run(tmp_path, "places.py", str(calls), "SIGKILL@1.6", status=65)[1]
    assert "the script has ended without the training" in said
    assert "--fresh --archive" in said
