"""The saver as a process: it commits, keeps out of the way, and may be killed at any point."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from saver_process import SpawnedSaver
from slots import GCM, RUN_ID, committed_steps, committer_of, config_of, snapshot_of, store_of
from supervised import DEADLINE_S, wait_until

from resilient.config import KeepPolicy, Sealing
from resilient.host.files import DiskFiles
from resilient.host.shared_memory import SharedMemory
from resilient.saving.saver_process import ProcessCommit
from resilient.store import layout
from resilient.wire.messages import CommitSlot, SlotCommitted, TakeOver

pytestmark = pytest.mark.process


@pytest.fixture
def start(tmp_path):
    """Starts savers on one store; none outlives the test."""
    started = []

    def begin(config=None, **more):
        started.append(SpawnedSaver(config or config_of(tmp_path), **more))
        return started[-1]

    yield begin
    for saver in started:
        saver.clear_away()


def temporaries(folder):
    return [path for path in folder.rglob("*") if path.is_file() and layout.is_temporary(path.name)]


def test_it_commits_slots(start, tmp_path):
    """One after the other, each durable when it is answered, with the name, the epoch and the seconds."""
    saver = start().opened()
    for step in range(1, 6):
        answer = saver.commit(step)
        assert (type(answer), answer.error, answer.epoch) == (SlotCommitted, "", 1)
        assert answer.seconds > 0
        assert Path(answer.path).is_file()
        assert committed_steps(tmp_path)[-1] == step
    assert saver.end() == (0, "")
    assert committed_steps(tmp_path) == [1, 2, 3, 4, 5]
    assert temporaries(tmp_path) == []


def test_retention_is_kept(start, tmp_path):
    """The newest stay, as the worker has said."""
    saver = start(config_of(tmp_path, keep=KeepPolicy(max_count=2))).opened()
    for step in range(1, 6):
        assert saver.commit(step).remarks == ()
    assert committed_steps(tmp_path) == [4, 5]


def test_a_failure_s_checkpoint_has_its_name(start, tmp_path):
    """What is saved for a dead worker is called a breakpoint, and made for a failure."""
    answer = start().opened().commit(3, reason="killed", failure=True)
    assert answer.path.endswith("_breakpoint.ckpt")
    (entry,) = store_of(tmp_path).entries()
    assert (entry.manifest.reason, entry.manifest.failure) == ("killed", True)


def test_neither_others_nor_the_disk_get_to_see_the_content(start, tmp_path):
    """Files are the user's alone, and no byte of the state is there in plain."""
    start(size_bytes=4096).opened().commit(7)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        if path.is_file():
            assert b"\x07" * 64 not in path.read_bytes()


def test_no_key_is_seen_from_outside(start):
    """Neither the command line nor the environment of the process has it."""
    saver = start().opened()
    folder = Path(f"/proc/{saver.process.pid}")
    seen = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    assert base64.b64encode(GCM.key) not in seen
    assert GCM.key not in seen
    assert GCM.key.hex().encode() not in seen


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_for_the_training_are_not_for_it(start, tmp_path, number):
    """It goes on committing: what is still to be saved is the training's decision."""
    saver = start().opened()
    for step in (1, 2):
        saver.process.send_signal(number)
        assert saver.commit(step).error == ""
    assert saver.end() == (0, "")
    assert committed_steps(tmp_path) == [1, 2]


def test_it_ends_with_its_link_and_finishes_what_it_has_in_hand(start, tmp_path):
    """A supervisor that dies in the middle of a commit leaves a checkpoint, and no process."""
    saver = start(size_bytes=32 * 1024 * 1024).opened()
    saver.request(1)
    assert saver.end()[0] == 0
    assert committed_steps(tmp_path) == [1]
    assert temporaries(tmp_path) == []
    DiskFiles().lock(layout.rank_lock(tmp_path, 0)).release()


def test_it_ends_with_its_link_before_anything_was_asked(start):
    """Also when not even a configuration came."""
    saver = start()
    assert saver.end() == (0, "")


def test_nonsense_is_answered_and_the_next_request_served(start, tmp_path):
    """Unknown requests, none of their fields, memory that is no mirror: an error, and life goes on."""
    saver = start().opened()
    before = saver.descriptors()
    zeros = os.memfd_create("zeros")
    os.ftruncate(zeros, 2**16)
    ours = saver.mirror.memory.descriptor
    order = {"type": "commit", "slot": {"number": 0, "sequence": 1, "step": 1}, "reason": "schedule"}
    order |= {"failure": False, "hurry": True}
    for content, descriptors in [
        ({"type": "dance"}, []),
        ({"type": "dance"}, [zeros, zeros]),
        ({"type": "commit"}, []),
        ({"type": "commit"}, [ours]),
        (order, []),
        (order, [zeros]),
        (order, [ours]),
        ({**order, "slot": {"number": 10**6, "sequence": 1, "step": 1}}, [ours]),
        ({**order, "slot": 3}, [ours]),
        ([], []),
    ]:
        socket.send_fds(saver._socket, [json.dumps(content).encode()], descriptors)
        answer, _ = saver.link.receive()
        assert isinstance(answer, SlotCommitted)
        assert answer.error
        assert answer.path == ""
    os.close(zeros)
    assert saver.descriptors() == before
    assert saver.commit(1).error == ""
    assert committed_steps(tmp_path) == [1]


def test_the_rank_s_lock_is_held_by_one_and_the_next_waits(start, tmp_path):
    """A second saver opens its store once the first has ended, however it ended; two never commit."""
    first = start().opened()
    assert first.commit(1).error == ""
    second = start()
    second.link.send(TakeOver())
    wait_until(second.has_read_all, "the second one is asked for the lock")
    assert second.link.poll() is None
    assert first.commit(2).error == ""
    assert second.link.poll() is None
    first.kill()
    assert second.link.receive()[0].error == ""
    assert second.commit(3).error == ""
    assert committed_steps(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_point_it_leaves_a_store_that_recovers(start, tmp_path, seed):
    """After SIGKILL at a random instant of a commit its successor has every acknowledged step, all whole."""
    rng = random.Random(seed)
    acknowledged, step = [], 0
    for _ in range(4):
        saver = start(size_bytes=4 * 1024 * 1024).opened()
        step += 1
        assert saver.commit(step).error == ""
        acknowledged.append(step)
        began = time.monotonic()
        step += 1
        saver.commit(step)
        acknowledged.append(step)
        length_s = time.monotonic() - began
        step += 1
        saver.request(step)
        # Nothing is waited for here: the instant of the kill is what varies.
        time.sleep(rng.random() * length_s)
        saver.kill()
        found = committed_steps(tmp_path)
        assert [n for n in found if n in acknowledged] == acknowledged
        assert found == sorted(found)
        assert set(found) <= set(range(1, step + 1))
    saver = start().opened()
    assert temporaries(tmp_path) == []
    assert saver.commit(step + 1).error == ""
    assert set(acknowledged) < set(committed_steps(tmp_path))


def test_a_killed_saver_s_commit_is_made_by_its_successor(start, tmp_path):
    """It holds no state: the same request, of the same slot, to another one."""
    first = start(size_bytes=16 * 1024 * 1024).opened()
    first.request(1)
    wait_until(lambda: temporaries(tmp_path), "the commit has begun")
    first.kill()
    second = start().opened()
    slot = first.mirror.newest()
    order = CommitSlot(slot, "killed", failure=True, hurry=True)
    answer = second.ask(order, first.mirror.memory.descriptor)
    assert answer.error == ""
    assert committed_steps(tmp_path)[-1] == 1
    assert temporaries(tmp_path) == []


def test_it_loads_neither_mindspore_nor_numpy(start):
    """Nothing of either is mapped into the process, after a commit too."""
    saver = start().opened()
    saver.commit(1)
    maps = Path(f"/proc/{saver.process.pid}/maps").read_text().lower()
    assert "python" in maps
    assert "mindspore" not in maps
    assert "numpy" not in maps


def test_it_stays_small(start, tmp_path):
    """Under 60 MB after fifty commits of 20 MB, and no larger than after the first few."""
    config = config_of(tmp_path, keep=KeepPolicy(max_count=1))
    saver = start(config, size_bytes=20 * 1024 * 1024).opened()
    for step in range(1, 11):
        assert saver.commit(step).error == ""
    early, open_early = saver.status("VmRSS"), saver.descriptors()
    for step in range(11, 51):
        assert saver.commit(step).error == ""
    late = saver.status("VmRSS")
    assert late < 60 * 1024
    assert late < early + 4 * 1024
    assert saver.descriptors() == open_early
    assert committed_steps(tmp_path) == [50]


def test_a_mirror_that_has_grown_is_not_kept(start):
    """Each commit's memory is let go: also where every one comes in memory of its own."""
    saver = start(size_bytes=8 * 1024 * 1024).opened()
    saver.commit(1)
    before = saver.status("VmSize")
    for step in range(2, 6):
        saver.mirror.close()
        saver.mirror = type(saver.mirror).make(
            saver.mirror.layout, 2, SharedMemory.create, saver.mirror.meta_bytes
        )
        assert saver.commit(step).error == ""
    assert saver.status("VmSize") < before + 8 * 1024


def test_it_is_polite_while_the_training_runs(start):
    """Its reading and writing comes last then; a failure's state is wanted at once."""
    saver = start().opened()
    process = psutil.Process(saver.process.pid)
    saver.commit(1, hurry=False)
    assert process.ionice() == (psutil.IOPRIO_CLASS_BE, 7)
    saver.commit(2, hurry=True)
    assert process.ionice() == (psutil.IOPRIO_CLASS_BE, 4)


# Without a supervisor: the training's own


def test_the_training_s_own_saver_commits_and_is_started_again(tmp_path):
    """A snapshot is committed by another process; one that was killed meanwhile is replaced unnoticed."""
    commit = ProcessCommit(committer_of(tmp_path), RUN_ID)
    try:
        assert commit(snapshot_of(1)).error == ""
        first = commit._process
        first.kill()
        first.wait(DEADLINE_S)
        assert commit(snapshot_of(2)).error == ""
        assert commit._process is not first
        steps = [entry.step for entry in store_of(tmp_path).entries()]
        assert steps == [2, 1]
    finally:
        commit.close()


def test_a_saver_that_cannot_be_started_is_an_error_of_the_save(tmp_path, monkeypatch):
    """The training goes on; the save has failed, and the next one tries again."""
    commit = ProcessCommit(committer_of(tmp_path, Sealing()), RUN_ID)
    with monkeypatch.context() as patch:
        patch.setattr("resilient.saving.saver_process.COMMAND", (str(tmp_path / "nothing"),))
        assert "saving process failed" in commit(snapshot_of(1)).error
    try:
        assert commit(snapshot_of(2)).error == ""
    finally:
        commit.close()


def test_a_saver_that_the_system_refuses_is_replaced_by_the_training_itself(tmp_path, monkeypatch):
    """A limit of processes costs time, and no checkpoint."""

    def refused(*words, **more):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    commit = ProcessCommit(committer_of(tmp_path), RUN_ID)
    monkeypatch.setattr(subprocess, "Popen", refused)
    assert commit(snapshot_of(1)).error == ""
    assert [entry.step for entry in store_of(tmp_path).entries()] == [1]
