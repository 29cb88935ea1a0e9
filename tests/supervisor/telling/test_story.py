"""The words on the console: what is said of saves that fail, and of what is not on disk at the end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from chaos.stepped_clock import SteppedClock
from resilient.wire.messages import SaveFailed
from supervisor.telling.console import Console
from supervisor.telling.story import Story
from supervisor.verdict.classify import KILLED, Incident
from supervisor.verdict.restart import History, Verdict

LOST = "step 24 was left in memory, and could NOT be saved: No space left on device"


@pytest.fixture
def story():
    return Story(Console(quiet=True), SteppedClock(), Path("/run"))


@pytest.mark.parametrize(
    ("more", "said"),
    [({}, "the training goes on"), ({"left_behind": True}, "it stays in memory")],
)
def test_a_training_that_has_ended_is_not_said_to_go_on(story, capfd, more, said):
    """What a dead worker has left, and could not be saved, is where it was."""
    story.message(SaveFailed(24, "No space left on device", **more))
    words = capfd.readouterr().err
    assert "saving step 24 FAILED: No space left on device" in words
    assert said in words


def test_what_is_waited_for_is_told_once(story, capfd):
    """Not at each look, because a few bytes more are free; but that it is the end that waits now."""
    for free in (6.5, 6.4, 6.5):
        story.held_up(f"a checkpoint needs 10.8 MB of disk, and {free} MB are free")
    assert capfd.readouterr().err.count("the restart waits: ") == 1
    story.held_up("a checkpoint needs 10.8 MB of disk, and 6.5 MB are free", "the end")
    assert capfd.readouterr().err.count("the end waits: ") == 1


def test_the_last_words_of_a_stop_tell_what_is_lost(story, capfd):
    """Also to who wants to hear nothing but what matters."""
    story.stopped(signal.SIGTERM, 20, LOST)
    words = capfd.readouterr().err
    assert f"step 20 is safe on disk, but {LOST}; the same command goes on after step 20" in words


def test_the_last_words_of_giving_up_name_both_causes(story, capfd):
    """What the worker died of, and what the disk has said."""
    incident = Incident(KILLED, "killed by SIGKILL", 137, hint="find out who sent the signal")
    story.gave_up(incident, Verdict(None, "no more restarts", History()), None, 20, LOST)
    words = capfd.readouterr().err
    assert "killed by SIGKILL" in words
    assert f"step 20 is safe on disk, but {LOST}; remove the cause (find out who sent the signal)" in words
    assert "and what kept the disk from being written" in words


def test_the_last_words_say_nothing_twice(story, capfd):
    """Where it was given up because of what could not be saved, that is told once."""
    incident = Incident(KILLED, "killed by SIGKILL", 137)
    story.gave_up(incident, Verdict(None, LOST, History()), None, 20, LOST)
    words = capfd.readouterr().err
    assert words.count(LOST) == 1
    assert "waited for in vain" in words
