"""resilient status, and who is told to be at work."""

from __future__ import annotations

import os
from pathlib import Path

from diaries import Diary, begin, flat
from tool_runs import make_run

from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.tools.account import build
from resilient.tools.journal_reader import Journal
from resilient.tools.narrative import Present, chapters


def test_status_in_a_few_lines(tool, diary):
    """Not running, the attempt, the step, the last checkpoint, the last failure, what next."""
    begin(diary)("resumed", step=5, file="A.ckpt")("saved", step=9, file="B.ckpt", reason="schedule")
    diary("incident_judged", kind="killed", cause="killed by SIGKILL", status=137, step=11, restart_in_s=None)
    diary("ended", status=137)
    told = tool("status", "run")
    for words in (
        "not running, given up",
        "step: 11",
        "last saved: step 9",
        "B.ckpt",
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
    account = build(Journal(World().files, diary.path).events())
    story = flat(" ".join(chapters(account, Present("run", "running", 77))))
    assert "process 10) vanished" in story
    assert "It is running now." not in story
    story = flat(" ".join(chapters(account, Present("run", "running", 10))))
    assert "vanished" not in story
