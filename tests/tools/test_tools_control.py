"""resilient stop and save: a signal to the one process that holds the run's lock, and to nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tool_runs import make_run

from resilient.host.files import DiskFiles
from resilient.run import lock_holder as holders

PROGRAM = Path(__file__).with_name("played_holder.py")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def play():
    """Starts processes that work on a run; returns once they hold it."""
    started = []

    def start(kind="supervisor", answer="saved", root="run"):
        command = [sys.executable, str(PROGRAM), root, kind, answer]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def bystander():
    """A process of ours that has nothing to do with any run, and would die of SIGTERM."""
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


def named(root, pid, boot_id=BOOT_ID):
    """A lock's file as one left it who is dead, or lives on another machine."""
    Path(root).mkdir(exist_ok=True)
    (Path(root) / "lock").write_text(json.dumps({"pid": pid, "boot_id": boot_id}))


def test_stop_ends_the_supervisor_and_tells_what_is_safe(tool, play):
    """SIGTERM; it is waited for, and the newest checkpoint is named: the one that it made on its way."""
    process = play()
    [facts] = tool.json("stop", "run")
    assert process.wait(10) == 0
    assert facts["stopped"] is True
    assert (facts["pid"], facts["saved_step"], facts["complete"]) == (process.pid, 9, False)
    assert "is told to stop" in tool.err
    assert "nobody works on the run" in tool("stop", "run", status=1)


def test_stop_says_it_in_words(tool, play):
    """One line for people: stopped, what is safe, what next."""
    play()
    assert tool("stop", "run") == (
        "stopped; step 9 is safe on disk as CKP_rank_0-1_9.ckpt; the same command goes on\n"
    )


def test_stop_need_not_wait(tool, play):
    """--no-wait returns once the signal is sent; --timeout 0 says that it has not ended yet."""
    process = play(answer="silence")
    tool("stop", "run", "--no-wait")
    assert process.stdout.readline() == f"heard {signal.SIGTERM:d}\n"
    assert process.poll() is None
    assert "has not ended within 0 s" in tool("stop", "run", "--timeout", "0", status=1)


def test_a_plain_training_is_stopped_too(tool, play):
    """Without a supervisor the training itself holds the lock, and has the same signal."""
    process = play("plain")
    assert "`resilient ls run` shows what is saved" in tool("stop", "run")
    assert process.wait(10) == 0
    assert "which has no supervisor" in tool.err


def test_save_waits_for_its_own_checkpoint(tool, play):
    """What was saved before, on schedule, or failed on schedule is not taken for what was asked for."""
    process = play()
    assert tool("save", "run") == "saved step 8 as CKP_rank_0-1_8.ckpt\n"
    assert process.poll() is None
    [facts] = tool.json("save", "run")
    assert facts == {"run": "run", "saved": True, "step": 8, "file": "CKP_rank_0-1_8.ckpt", "error": ""}


def test_a_save_that_fails_is_told(tool, play):
    """Exit status 1 and the reason."""
    play(answer="failed")
    assert "FAILED: No space left on device" in tool("save", "run", status=1)


def test_nothing_new_to_save_is_no_failure(tool, play):
    """The newest step is safe already: exit status 0, and the line says so."""
    play(answer="nothing")
    assert "step 8 is saved already" in tool("save", "run")


def test_where_nothing_trains_nothing_is_waited_for(tool, play):
    """Between two attempts: exit status 1, and the line says so."""
    play(answer="refused")
    assert "there is no training" in tool("save", "run", status=1)


def test_a_supervisor_that_ends_meanwhile_is_not_waited_for(tool, play):
    """It is dead: nothing will come any more."""
    play(answer="end")
    assert "has ended before it was saved" in tool("save", "run", status=1)


def test_a_save_is_waited_for_no_longer_than_asked(tool, play):
    """A long step: the line says that the request stands."""
    process = play(answer="silence")
    assert "not saved within 0.2 s" in tool("save", "run", "--timeout", "0.2", status=1)
    assert process.poll() is None


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        ("plain", "saved", "trains without a supervisor"),
        ("plain", "hears", "trains without a supervisor"),
        ("supervisor", "deaf", "does not take requests"),
    ],
)
def test_who_would_die_of_the_request_is_not_asked(tool, play, kind, answer, words):
    """A training without a supervisor, and a supervisor without a handler: refused, and both live."""
    process = play(kind, answer)
    assert words in tool("save", "run", status=1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == f"heard {signal.SIGTERM:d}\n", "the first signal that it hears"


def test_a_stale_lock_whose_pid_was_given_to_another_process_hits_nobody(tool):
    """The lock's file names a living process that never held it: it is not signalled."""
    make_run("run", steps=())
    process = bystander()
    try:
        named("run", process.pid)
        for command in ("stop", "save"):
            assert "nobody works on the run" in tool(command, "run", status=1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_reused_pid_is_not_hit_although_the_lock_is_held(tool, monkeypatch):
    """A dead run's child still holds its lock, and its pid is another process's: that one is left alone."""
    monkeypatch.setattr(holders, "_PATIENCE_S", 0.1)
    make_run("run", steps=())
    process = bystander()
    lock = DiskFiles().lock(Path("run/lock"), json.dumps({"pid": process.pid, "boot_id": BOOT_ID}).encode())
    try:
        tool("stop", "run", status=64)
        assert f"not by process {process.pid}" in tool.err
        assert process.poll() is None
    finally:
        lock.release()
        process.kill()
        process.wait()


def test_having_the_file_open_is_not_holding_it(tool, play):
    """A process that reads the lock's file, and is named in it, is not signalled."""
    make_run("run", steps=())
    named("run", os.getpid())
    with open("run/lock"):
        assert "nobody works on the run" in tool("stop", "run", status=1)


def test_a_run_on_another_machine_is_left_to_it(tool, monkeypatch):
    """Its lock is held and names another boot: the command has to be given there."""
    monkeypatch.setattr(holders, "_PATIENCE_S", 0.1)
    make_run("run", steps=())
    lock = DiskFiles().lock(Path("run/lock"), json.dumps({"pid": os.getpid(), "boot_id": "other"}).encode())
    try:
        tool("stop", "run", status=64)
        assert "on another machine" in tool.err
    finally:
        lock.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"[]", b"{}", b'{"pid": -1, "boot_id": ""}', b'{"pid": 1e400, "boot_id": 3}', b"[" * 4000],
)
def test_nonsense_in_a_lock_names_nobody(tool, content):
    """A torn lock file that nobody holds is a run that nobody works on."""
    make_run("run", steps=())
    Path("run/lock").write_bytes(content)
    tool("stop", "run", status=1)


def test_a_folder_that_is_no_run_is_bad_usage(tool):
    """A wrong name is told from a run that has ended."""
    os.mkdir("empty")
    for name in ("empty", "missing"):
        for command in ("stop", "save", "status", "explain"):
            tool(command, name, status=64)


def test_a_damaged_record_does_not_keep_a_run_from_being_stopped(tool, play):
    """stop needs the lock alone."""
    process = play()
    Path("run/run.json").write_text("{")
    tool("stop", "run")
    assert process.wait(10) == 0


@pytest.mark.parametrize("timeout", ["1e300", "1e10", "3000000"])
def test_a_timeout_beyond_all_measure_is_waited_for(tool, play, timeout):
    """Longer than the kernel can count: it is waited all the same, and ends when the run does."""
    process = play()
    tool("stop", "run", "--timeout", timeout)
    assert process.wait(10) == 0
    process = play()
    tool("save", "run", "--timeout", timeout)


@pytest.mark.parametrize("timeout", ["nan", "inf", "-inf", "-1", "soon", "1e999", ""])
@pytest.mark.parametrize("command", ["stop", "save"])
def test_what_is_no_time_is_refused(tool, command, timeout):
    """It is bad usage, said in words, and nobody is told to stop."""
    make_run("run")
    tool(command, "run", f"--timeout={timeout}", status=64)
    assert "is no number of seconds" in tool.err
