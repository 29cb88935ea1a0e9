"""resilient status, and who is told to be at work."""

from __future__ import annotations

import os
from pathlib import Path

from diaries import Diary, begin, flat
from tool_runs import key_file, make_run

from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.tools.account import build
from resilient.tools.journal_reader import JournalReader
from resilient.tools.narrative import chapters
from resilient.tools.outlook import Present


def test_status_in_a_few_lines(tool, diary):
    """Not running, the attempt, the step, the last checkpoint, the last failure, what next."""
    begin(diary)("resumed", step=5, file="A.ckpt")("saved", step=9, file="B.ckpt", reason="schedule")
    diary("incident_judged", kind="killed", cause="killed by SIGKILL", status=137, step=11, restart_in_s=None)
    diary("ended", status=137)
    make_run("run", steps=(5, 9))
    told = tool("status", "run")
    for words in (
        "not running, given up",
        "step: 11",
        "last saved: step 9",
        "CKP_rank_0-2_1.ckpt",
        "attempt 1: killed by SIGKILL",
    ):
        assert words in flat(told), words
    [facts] = tool.json("status", "run")
    assert (facts["running"], facts["step"], facts["saved_step"], facts["status"]) == (False, 11, 9, "failed")


def test_status_of_a_run_whose_supervisor_was_killed(tool):
    """The record says running and the lock says nobody: told as what it is."""
    make_run("run", steps=(), status="running")
    begin(Diary())
    assert "not running, although its record says so" in flat(tool("status", "run"))


def test_a_run_at_work_is_told_as_running(tool, diary):
    """By the lock, whatever the record says; the newest attempt is running now."""
    begin(diary, pid=os.getpid())("fresh", attempt=1)
    lock = RunDirectory(Path("run").absolute(), World()).lock()
    try:
        assert f"running, supervisor: process {os.getpid()}" in tool("status", "run")
        story = flat(tool("explain", "run"))
        assert "It is running now." in story
        assert "resilient stop run" in story
        assert "vanished" not in story
    finally:
        lock.release()


def test_a_plain_training_after_a_supervisor_that_vanished(diary):
    """Somebody holds the run, and it is not the supervisor of the journal: that one is gone."""
    begin(diary)
    account = build(JournalReader(World().files, diary.path).events())
    story = flat(" ".join(chapters(account, Present("run", "running", 77))))
    assert "process 10) vanished" in story
    assert "It is running now." not in story
    story = flat(" ".join(chapters(account, Present("run", "running", 10))))
    assert "vanished" not in story


# On disk


def test_checkpoints_that_the_journal_does_not_know(tool):
    """The journal is gone, or its disk was full: both name the newest valid checkpoint all the same."""
    make_run("run", status="stopped")
    begin(Diary())
    for _ in range(2):
        assert "last saved: step 15" in flat(tool("status", "run"))
        assert "Step 15 is safe on disk" in flat(tool("explain", "run"))
        (Path("run") / "journal.jsonl").unlink(missing_ok=True)


def test_a_reported_checkpoint_that_is_gone(tool, diary):
    """The journal reports it, and the disk has an older one, or none: nothing is called safe that is not."""
    begin(diary)("saved", step=20, file="C.ckpt", reason="schedule")("ended", status=1)
    assert "last saved: nothing missing: step 20, which the journal reports as saved: C.ckpt" in flat(
        tool("status", "run")
    )
    story = flat(tool("explain", "run"))
    assert "reports step 20 as saved (C.ckpt): it is not there" in story
    assert "from the beginning" not in story
    make_run("run")
    assert "last saved: step 15" in flat(tool("status", "run"))
    assert "Step 15 is safe on disk (CKP_rank_0-2_7.ckpt). The journal reports step 20" in flat(
        tool("explain", "run")
    )
    [facts] = tool.json("status", "run")
    assert (facts["saved_step"], facts["reported_step"]) == (15, 20)


def test_a_checkpoint_that_was_gone_back_behind(tool, diary):
    """The run resumed from an older one last: that is the one it would resume from."""
    make_run("run")
    for step, name in ((10, "CKP_rank_0-2_2.ckpt"), (15, "CKP_rank_0-2_7.ckpt")):
        diary("saved", step=step, file=name, reason="schedule")
    diary("resumed", step=10, file="CKP_rank_0-2_2.ckpt")
    assert "last saved: step 10" in flat(tool("status", "run"))


def test_a_record_that_calls_the_run_complete(tool, tmp_path):
    """It is not believed where no key vouches for it, or where the checkpoints tell otherwise."""
    key, _ = key_file(tmp_path, "a.key")
    make_run("forged", Sealing("AES-GCM", key), status="complete")
    make_run("stale", steps=(), status="complete", saved=True)
    make_run("true", status="complete", saved=True)
    for name, believed in (("forged", False), ("stale", False), ("true", True)):
        told = flat(tool("status", name))
        assert ("its record says that it is complete, but" not in told) == believed, told
        assert ("There is nothing left to do" in told) == believed, told
        assert ("the run is complete." in flat(tool("explain", name))) == believed


def test_a_checkpoint_whose_key_is_not_at_hand(tool, tmp_path):
    """It is named, and that nobody can vouch for it here."""
    key, _ = key_file(tmp_path, "a.key")
    make_run("run", Sealing("AES-GCM", key), status="stopped")
    assert "step 15: CKP_rank_0-2_7.ckpt (sealed with a key that is not at hand)" in flat(
        tool("status", "run")
    )
    assert "it goes on after step 15" in flat(tool("explain", "run"))
