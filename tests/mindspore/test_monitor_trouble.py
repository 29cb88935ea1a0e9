"""CheckpointMonitor in a plain process: full disks, signals, and a directory that is not free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore.train import Callback
from small import At, dataset, files, meta, model, raising

from chaos.stepped_clock import SteppedClock
from resilient import CheckpointMonitor
from resilient.errors import BusyError, StorageError, UsageError
from resilient.host.world import World
from resilient.run.rundir import RunDirectory

pytestmark = pytest.mark.mindspore

PROGRAM = Path(__file__).parent / "programs" / "trouble.py"
CHECKPOINTS = "out/checkpoint/rank_0"


def meet(folder, kind, **environment):
    return subprocess.run(
        [sys.executable, str(PROGRAM), kind],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("kind", ["full", "full_thread", "full_process"])
def test_a_full_disk_does_not_end_the_training(tmp_path, kind):
    """One loud line; what was saved before stays; the next save works once there is space again."""
    done = meet(tmp_path, kind)
    assert done.returncode == 0, done.stderr
    saved = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("finished")][-1]
    failed = [line for line in done.stderr.splitlines() if "FAILED" in line]
    assert failed, done.stderr
    assert "earlier checkpoints are intact, training goes on" in failed[0]
    assert saved == ["4", "12", "16"]
    assert "saving step 8 FAILED" in failed[0]
    assert not files(tmp_path / CHECKPOINTS, ".*.tmp")


def test_a_stop_signal_is_saved_and_ends_the_process(tmp_path):
    """SIGTERM: the last completed step is committed, then the process dies of the signal, as without us."""
    done = meet(tmp_path, "stopped")
    assert done.returncode == -signal.SIGTERM
    assert files(tmp_path / CHECKPOINTS) == ["CKP_rank_0-2_2_breakpoint.ckpt"]
    assert meta(tmp_path / CHECKPOINTS)["last_step"] == 2
    assert "saved step 10 (SIGTERM)" in done.stderr


def test_the_scripts_own_handler_keeps_working(tmp_path):
    """It is called, and the training goes on as it wants; a checkpoint is made all the same."""
    done = meet(tmp_path, "handled")
    assert done.returncode == 0, done.stderr
    assert "my own handler" in done.stdout
    assert "finished 10 16" in done.stdout


def test_an_ignored_signal_stays_ignored(tmp_path):
    """nohup's SIGHUP ends nothing, and saves nothing."""
    done = meet(tmp_path, "ignored")
    assert done.returncode == 0, done.stderr
    assert "finished 16" in done.stdout


def test_on_request_exit_keeps_working(tmp_path):
    """MindSpore's own callback for graceful exits ends the training at the step, and our files are right."""
    done = meet(tmp_path, "request", MS_ENABLE_GRACEFUL_EXIT="1")
    assert done.returncode == 0, done.stderr
    assert "saved step 10 (SIGTERM)" in done.stderr
    assert "finished 10" in done.stdout


def test_a_directory_in_use_is_refused(plain):
    """Another process works on the same directory: its pid, before anything is touched."""
    lock = RunDirectory(Path("out").absolute(), World()).lock()
    with pytest.raises(BusyError, match=f"in use by process {os.getpid()}"):
        model().train(1, dataset(), callbacks=[CheckpointMonitor(directory="out")])
    lock.release()


def test_a_directory_that_cannot_be_is_refused(plain):
    """A file where the folder should be: a clear error when the training begins, not after hours."""
    Path("out").write_text("a file")
    with pytest.raises(StorageError, match="out"):
        model().train(1, dataset(), callbacks=[CheckpointMonitor(directory="out")])
    assert Path("out").read_text() == "a file"


@pytest.mark.parametrize("state", [lambda: [object()], lambda: np.array([object()]), lambda: 1 / 0])
def test_a_callback_whose_state_cannot_be_taken_is_named(plain, capsys, state):
    """It is said when the training begins; the training, and its checkpoints, go on without it."""

    class Odd(Callback):
        def state_dict(self):
            return state()

        def load_state_dict(self, state):
            raise AssertionError("never")

    model().train(1, dataset(), callbacks=[CheckpointMonitor(directory="out"), Odd()])
    assert capsys.readouterr().err.count("the state of the callback Odd cannot be saved") == 1
    assert files(CHECKPOINTS)


def test_the_scripts_own_exception_is_the_one_that_is_seen(plain, capsys, monkeypatch):
    """Whatever goes wrong with us while it is being saved."""

    def fail(recorder, reason):
        raise RuntimeError("ours")

    monkeypatch.setattr("resilient.worker.boundary.recorder.Recorder.fail", fail)
    saves = CheckpointMonitor(directory="out", save_checkpoint_steps=4, exception_save=True)
    with pytest.raises(ValueError, match="theirs"):
        model().train(1, dataset(), callbacks=[saves, At(6, raising(ValueError("theirs")))])
    said = capsys.readouterr().err
    assert "saving step 6 FAILED: RuntimeError: ours" in said
    assert "no step completed" not in said


def test_an_entry_may_not_hide_a_parameter(plain):
    """append_info with the name of a parameter would be loaded into it: refused at once."""
    saves = CheckpointMonitor(directory="out", append_info=[{"first.weight": 1.0}])
    with pytest.raises(UsageError, match=r"first\.weight"):
        model().train(1, dataset(), callbacks=[saves])


def test_whatever_goes_wrong_inside_a_save_is_told(plain, capsys):
    """An error nobody thought of, on the thread that saves: loud, and nobody waits for ever."""

    class BrokenClock(SteppedClock):
        def now(self):
            raise MemoryError("no room for this")

    session = plain()
    saves = CheckpointMonitor(directory="out", save_checkpoint_steps=4, async_save=True)
    # The store asks for the time of a checkpoint while it commits it.
    session.open(saves.settings)
    session.place.store._clock = BrokenClock()
    model().train(1, dataset(), callbacks=[saves], dataset_sink_mode=False)
    assert "FAILED: MemoryError: no room for this" in capsys.readouterr().err
    assert files(CHECKPOINTS) == []
