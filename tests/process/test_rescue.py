"""What a dead worker leaves in memory and the disk does not take: waited for, and never lost in silence."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from supervised import TRAINING, events

pytestmark = pytest.mark.process

LEFT_BEHIND = f"""
    sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
    from slots import rank_mirror, write
    from resilient.config import KeepPolicy, Sealing
    from resilient.wire.messages import OpenStore, SaveDone, SaveSlot, StoreOpened, TakeMirror
    folder = me.config.directory / "checkpoint" / "rank_0"

    def hand_over():
        mirror = rank_mirror()
        me.tell(OpenStore(me.config.directory, KeepPolicy(), Sealing()))
        assert me.link.wait(StoreOpened, 30)
        me.link.send(TakeMirror(), [mirror.memory.descriptor])
        write(mirror, 24)
        step(24)
        return mirror

    def spoil():
        # To the machine's eyes nothing is wrong with the disk, and yet no checkpoint can be made.
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            folder.rename(folder.with_name("aside"))
        folder.write_text("in the way")

    def ask_for_a_save():
        me.tell(SaveSlot(mirror.newest(), epoch=1, reason="schedule", failure=False))
        assert me.link.wait(SaveDone, 30)

    if attempt == 1:
        mirror = hand_over()
        spoil()
        ask_for_a_save()
        os.kill(os.getpid(), signal.SIGKILL)
"""
DIES = TRAINING + LEFT_BEHIND
NOT_SAVED = "step 24 was left in memory, and could NOT be saved"


def folder_of(run):
    return run.folder / "run" / "checkpoint" / "rank_0"


def make_room(run):
    folder_of(run).unlink()


def test_the_next_attempt_waits_until_what_was_left_is_saved(supervise):
    """It is tried again, and no group is launched before: then step 24 is on disk."""
    run = supervise(DIES + "    assert [file for file in folder.iterdir() if file.suffix == '.ckpt']\n")
    run.wait_for(f"the restart waits: {NOT_SAVED}", "err")
    assert len(events(run, "attempt")) == 1
    make_room(run)
    assert run.end() == 0, run.err()
    assert [event["step"] for event in events(run, "saved")] == [24]
    assert len(events(run, "attempt")) == 2


def test_a_run_that_is_given_up_waits_for_it_as_well(supervise):
    """Its memory ends with the supervisor: what is in it is saved first."""
    run = supervise(DIES, "--max-restarts", "0")
    run.wait_for(f"the end waits: {NOT_SAVED}", "err")
    make_room(run)
    assert run.end() == 137
    assert [event["step"] for event in events(run, "saved")] == [24]
    assert "step 24 is safe on disk" in run.err().splitlines()[-1]
    assert NOT_SAVED not in run.err().splitlines()[-1]


def test_a_stop_ends_the_waiting_and_tells_what_is_lost(supervise):
    """Within the grace; the last words name the step and what the disk has said."""
    run = supervise(DIES, "--grace", "2")
    run.wait_for("the restart waits", "err")
    run.send(signal.SIGTERM)
    assert run.end() == 75
    words = run.err().splitlines()[-1]
    assert f"nothing was saved yet, but {NOT_SAVED}" in words
    assert "exists and is not a directory" in words
    assert NOT_SAVED in events(run, "ended")[-1]["lost"]


def test_memory_that_makes_no_sense_is_not_waited_for(supervise):
    """To save it again is of no use: the next attempt goes on from what there is."""
    run = supervise(DIES.replace("        spoil()", "        mirror.memory.write(0, bytes(64))"))
    assert run.end() == 0, run.err()
    assert len(events(run, "attempt")) == 2
    assert events(run, "waiting") == []


def test_a_stop_while_a_run_is_saved_that_was_given_up_makes_no_stop_of_it(supervise):
    """It ends with the script's own status: who requeues what was stopped would try it for ever."""
    run = supervise(DIES, "--max-restarts", "0", "--grace", "2")
    run.wait_for(f"the end waits: {NOT_SAVED}", "err")
    run.send(signal.SIGTERM)
    assert run.end() == 137
    assert "giving up: " in run.err().splitlines()[-1]
    assert NOT_SAVED in run.err().splitlines()[-1]
    assert events(run, "ended")[-1]["status"] == 137
