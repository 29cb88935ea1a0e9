"""Journals that an earlier version wrote, before they carried a version: they tell the same story as then.

Each ``journals/NAME.jsonl`` is a real run's, with its paths replaced, and ``NAME.txt`` is what the tools of
that version said of it. Only a change of the tools' words may change that; a journal is never written anew.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from tool_runs import make_run

from chaos.stepped_clock import SteppedClock
from resilient.host.world import World
from resilient.tools.on_disk import OnDisk

JOURNALS = Path(__file__).parent / "journals"
NAMES = sorted(path.stem for path in JOURNALS.glob("*.jsonl"))
STATUS = {"stopped_insisted": "stopped", "poison_given_up": "failed", "cannot_start": "failed"}
NOW = 1_796_000_000.0


@pytest.fixture
def journal_alone():
    """No clock, no time zone and no disk adds anything to what the journal tells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        patch.setattr("resilient.tools.status.World", lambda: World(clock=SteppedClock(now=NOW)))
        patch.setattr(
            "resilient.tools.explain.look_at_disk", lambda directory: OnDisk(unread="no disk is asked")
        )
        yield
    time.tzset()


def stories(tool, name):
    """Everything that the tools say of a journal, one after the other."""
    make_run("run", steps=(), status=STATUS.get(name, "complete"))
    for number in range(1, 4):
        Path(f"run/logs/attempt_{number:04d}").mkdir(parents=True)
    shutil.copy(JOURNALS / f"{name}.jsonl", "run/journal.jsonl")
    commands = (
        ("explain",),
        ("explain", "--attempt", "1"),
        ("status",),
        ("explain", "--json"),
        ("status", "--json"),
    )
    return "\n".join(
        f"$ resilient {' '.join(words)}\n{tool(words[0], 'run', *words[1:])}" for words in commands
    )


@pytest.mark.usefixtures("journal_alone")
@pytest.mark.parametrize("name", NAMES)
def test_a_journal_of_an_earlier_version_tells_the_same_story(tool, name):
    """Word by word, for people and for programs."""
    assert stories(tool, name) == (JOURNALS / f"{name}.txt").read_text()
