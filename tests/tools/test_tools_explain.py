"""resilient explain and status: the story of a run, from whatever its journal has become."""

from __future__ import annotations

import json

from diaries import begin, flat
from tool_runs import make_run

from resilient.host.world import World
from resilient.journal.base import JOURNAL_VERSION
from resilient.tools.account import build
from resilient.tools.journal_reader import JournalReader

TRACEBACK = (
    "Traceback (most recent call last):\n" + "".join(f"  frame {i}\n" for i in range(20)) + "ValueError: bad"
)


def test_the_story_of_two_attempts(tool, diary):
    """Each attempt: from where to where, why it ended, how that is known, what was saved, what followed."""
    begin(diary)("fresh", attempt=1)("progress", attempt=1, step=1)
    diary("saved", attempt=1, step=40, epoch=1, file="A.ckpt", reason="schedule", after_s=3600)
    diary(
        "incident_judged",
        attempt=1,
        kind="killed",
        cause="killed by SIGKILL",
        status=137,
        step=99,
        phase="STEP",
        at_start=False,
        evidence=["no signal was sent by us", "the kernel killed nobody"],
        restart_in_s=1.25,
        reason="restart 1 of 10",
        saved_step=40,
        kept_step=99,
    )
    make_run("run", steps=(99,))
    diary("saved", step=99, epoch=2, file="B_breakpoint.ckpt", reason="killed", after_s=500)
    diary("attempt", attempt=2, pid=12)("resumed", attempt=2, step=99, epoch=2, file="memory")
    diary(
        "incident",
        attempt=2,
        kind="exception",
        exception="ValueError",
        message="bad",
        traceback=TRACEBACK,
        step=120,
        phase="callbacks",
    )
    diary(
        "incident_judged",
        attempt=2,
        kind="exception",
        cause="ValueError: bad",
        status=1,
        restart_in_s=None,
        reason="restarts are switched off (--max-restarts 0)",
        hint="correct what raised the exception",
    )
    diary("ended", status=1)
    story = tool("explain", "run")
    first, second = (flat(part) for part in story.split("\n\n")[1:3])
    for words in (
        "Attempt 1, ",
        "1 h",
        "started from the beginning",
        "completed steps 1 to 99",
        "ended after step 99 in the phase step: killed by SIGKILL [killed, exit status 137]",
        "- the kernel killed nobody",
        "2 checkpoints were saved, the last one of step 99: B_breakpoint.ckpt",
        "step 99 was kept in memory",
        "start it again 1.2 s later: restart 1 of 10",
    ):
        assert words in first, words
    for words in (
        "went on after step 99 from memory",
        "completed steps 100 to 120",
        "ValueError: bad [exception, exit status 1]",
        "gave up: restarts are switched off",
        "The last 21 steps have to be computed again",
        "frame 19 ValueError: bad",
    ):
        assert words in second, words
    assert "frame 12" not in second
    assert "correct what raised the exception" in flat(story)
    assert "it goes on after step 99" in flat(story)
    assert max(map(len, story.splitlines())) <= 88


def test_what_is_saved_after_an_attempt_does_not_lengthen_it(diary):
    """It ended when it was judged; its memory may be saved much later, and is still its own."""
    begin(diary)("incident_judged", kind="killed", cause="killed by SIGKILL", status=137, restart_in_s=1)
    diary("saved", step=9, file="A.ckpt", reason="killed", after_s=500)
    [attempt] = build(JournalReader(World().files, diary.path).events()).attempts
    assert attempt.span.seconds == 2
    assert attempt.last_save.step == 9


def test_what_the_run_would_go_on_from(diary):
    """The last one, not the highest step: after a rollback, and where a newer one could not be read."""

    def durable():
        return build(JournalReader(World().files, diary.path).events()).durable

    begin(diary)("saved", step=100, file="A.ckpt")("resumed", step=100, file="memory")
    assert durable().file == "A.ckpt"
    diary("attempt", attempt=2)("resumed", step=60, file="B.ckpt")
    assert (durable().step, durable().file) == (60, "B.ckpt")
    diary("saved", step=80, file="C.ckpt")
    assert (durable().step, durable().file) == (80, "C.ckpt")


def test_a_line_without_an_end_takes_no_memory(diary):
    """However long it is."""
    diary.raw(b"x" * 5_000_000)
    journal = JournalReader(World().files, diary.path)
    assert list(journal.events()) == []
    assert len(journal._rest) <= 2**20
    diary.raw(b"x\n")
    diary("ended")
    assert [event.word for event in journal.events()] == ["ended"]
    assert journal.torn == 1


def test_one_attempt_in_full(tool, diary):
    """--attempt N tells of that one alone, with the whole traceback; a wrong N is bad usage."""
    begin(diary)(
        "incident", kind="exception", exception="ValueError", message="bad", traceback=TRACEBACK, step=0
    )
    diary(
        "incident_judged",
        kind="exception",
        cause="ValueError: bad",
        status=1,
        at_start=True,
        restart_in_s=0.0,
    )
    diary("attempt", attempt=2, pid=12)
    told = tool("explain", "run", "--attempt", "1")
    assert "frame 0" in told
    assert "before completing a step" in flat(told)
    assert "Attempt 2" not in told
    tool("explain", "run", "--attempt", "3", status=64)
    assert "there are 1 to 2" in tool.err
    [facts] = tool.json("explain", "run", "--attempt", "1")
    assert facts["report"]["traceback"] == TRACEBACK


def test_a_supervisor_that_was_killed_is_named(tool, diary):
    """A journal that breaks off without `ended`, and nobody at work: the supervisor itself was killed."""
    begin(diary)
    story = flat(tool("explain", "run"))
    assert (
        "The supervisor (process 10) vanished without a last word: the supervisor itself was killed" in story
    )
    assert "How it ended is not known" in story


def test_several_supervisors_one_after_the_other(tool, diary):
    """Each takeover is told; one after the machine went down is told as that."""
    begin(diary)
    begin(diary, pid=20, attempt=2)("ended", status=75)
    diary.monotonic = 3.0
    begin(diary, pid=30, attempt=3)
    story = flat(tool("explain", "run"))
    assert "under 3 supervisors" in story
    assert story.count("the same command was run again") == 2
    assert story.count("after the machine had been started anew") == 1
    assert "process 10) vanished" in story
    assert "process 20) vanished" not in story
    assert "process 30) vanished" in story


def test_a_machine_that_went_down_is_told_from_a_kill(tool, diary):
    """The monotonic clock began anew between two supervisors: it was the machine."""
    begin(diary)
    diary.monotonic = 3.0
    begin(diary, pid=20, attempt=2)("ended", status=0)
    story = flat(tool("explain", "run"))
    assert "process 10) vanished without a last word: the machine went down;" in story


def test_a_torn_journal_is_told_as_far_as_it_goes(tool, diary):
    """Half a line, zeros, garbage and an endless line are counted and left out; a last whole line counts."""
    begin(diary)("resumed", attempt=1, step=5, file="A.ckpt")
    diary.raw(b'{"time": 17000\n')
    diary.raw(b"\0" * 500 + b"\n" + bytes(range(128, 256)) + b"\n" + b"x" * 3_000_000 + b"\n[1, 2]\n")
    diary.raw(b'{"event": "saved", "step": 7, "file": "CKP_rank_0-1_7.ckpt"}')
    make_run("run", steps=(7,))
    story = flat(tool("explain", "run"))
    assert "5 lines of the journal are torn" in story
    assert "went on after step 5 from A.ckpt" in story
    assert "Step 7 is safe on disk (CKP_rank_0-1_7.ckpt)" in story


def test_a_training_that_was_woken_did_not_hang(tool, diary):
    """It is told as a remark; what ended the attempt later is something else."""
    begin(diary)("hang", attempt=1, phase="callbacks", step=6, silent_s=33.0, limit_s=30.0, stopped=True)
    diary("moves")("incident_judged", attempt=1, kind="exited", cause="os._exit(7)", status=7, step=40)
    story = flat(tool("explain", "run"))
    assert "Note: nothing moved for 33 s after step 6; it went on when it was woken" in story
    assert "It hung" not in story


def test_an_older_journal_lacks_fields(tool, diary):
    """What is not said is not told; nothing is made up, and nothing fails."""
    for event in (
        "run",
        "attempt",
        "fresh",
        "saved",
        "save_failed",
        "hang",
        "moves",
        "memory",
        "waiting",
        "poison",
        "shunned",
        "left_behind",
        "killed",
        "incident",
        "incident_judged",
        "stop_requested",
        "spawn_failed",
        "ended",
    ):
        diary.raw(json.dumps({"event": event}).encode() + b"\n")
    story = tool("explain", "run")
    assert "None" not in story
    assert "no cause is given" in flat(story)
    tool("status", "run")
    assert tool.json("explain", "run")[-1]["torn_lines"] == 0


def test_no_journal_no_story(tool, diary):
    """A run that has not begun: said so, no failure."""
    assert "tells of nothing yet" in tool("explain", "run")
    assert "never finished" in tool("status", "run") or "given up" in tool("status", "run")


def test_a_supervisor_that_failed_itself_is_told_as_that(tool, diary):
    """Its fault, and not the training's; what it went on with is a note."""
    begin(diary)("progress", attempt=1, step=1)
    diary("mishap", what="a message", times=1, traceback="Traceback ...")
    diary("broken", error="Broken: the transition failed", traceback="Traceback ...")
    make_run("run", steps=(7,))
    diary("saved", step=7, epoch=1, file="A_breakpoint.ckpt", reason="supervisor")
    diary("ended", status=70, step=7)
    story = flat(tool("explain", "run"))
    assert "It was ended because the supervisor itself failed: Broken: the transition failed." in story
    assert "Note: a message: a fault of resilient-run itself, which the run went on with" in story
    assert "the supervisor ended the run for a fault of its own" in story
    assert "it goes on after step 7" in story


def test_a_stop_behind_the_end_is_not_why_it_ended(tool, diary):
    """The run was given up, and somebody stopped it while it was saved."""
    begin(diary)("progress", attempt=1, step=1)
    diary("incident_judged", attempt=1, kind="exception", cause="ValueError: bad", status=1, reason="enough")
    diary("stop_requested", signal="SIGTERM")
    diary("ended", status=1)
    story = flat(tool("explain", "run"))
    assert "The supervisor gave up: enough." in story
    assert "asked to stop" not in story


def test_what_another_version_has_written_is_named(tool, diary):
    """A journal of a newer version, or with events that nobody here knows: the rest of it is told as ever."""
    begin(diary)("resumed", step=5, file="A.ckpt")("ended", status=75)
    diary("run", run_id="r", command=["train.py"], pid=20, version=JOURNAL_VERSION + 1)
    diary("rank_lost", rank=3, step="x" * 50)("rank_lost")("\x1b[2Jelastic")("saved", step=7, file="B.ckpt")
    for words in (flat(tool("explain", "run")), flat(tool("status", "run"))):
        assert "A newer version of resilient-run has written some of the journal" in words
        assert "3 events of a kind that this version does not know (\\x1b[2Jelastic, rank_lost)" in words
    assert "went on after step 5 from A.ckpt" in flat(tool("explain", "run"))
    assert tool.json("explain", "run")[-1]["unknown_events"] == {"rank_lost": 2, "\\x1b[2Jelastic": 1}


def test_thousands_of_unknown_names_are_no_burden(tool, diary):
    """They are counted, and a few of them named."""
    for number in range(1000):
        diary(f"{'x' * 3000}{number}" if number % 2 else f"n{number}")
    told = flat(tool("explain", "run"))
    assert "1000 events of a kind that this version does not know" in told
    assert len(told) < 1000
    counts = tool.json("explain", "run")[-1]["unknown_events"]
    assert sum(counts.values()) == 1000
    assert len(counts) <= 21
    assert max(map(len, counts)) <= 40


def test_a_journal_of_this_version_needs_no_word_about_it(tool, diary):
    """Nor does one of before there was a version."""
    diary("run", run_id="r", command=["train.py"], pid=10, version=JOURNAL_VERSION)
    begin(diary)
    assert "version" not in tool("explain", "run")
    assert "version" not in tool("status", "run")
