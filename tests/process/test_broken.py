"""A supervisor with a fault of its own saves the memory before it ends, and leaves nothing behind."""

from __future__ import annotations

import signal

import pytest
from supervised import TRAINING, events, wait_until
from test_deaths import processes_of
from test_rescue import LEFT_BEHIND

pytestmark = pytest.mark.process

KEEPS = TRAINING + LEFT_BEHIND.replace("        spoil()\n        ask_for_a_save()\n", "").replace(
    "        os.kill(os.getpid(), signal.SIGKILL)\n", "        print('kept'); signal.pause()\n"
)


def program(seeded):
    """resilient-run with a fault that is seeded into its source."""
    return ("-c", f"import sys\nfrom supervisor.command import cli\n{seeded}\nsys.exit(cli.main())")


NO_PLAN = (
    "from supervisor.verdict import deadline\ndef plan(*a): raise KeyError('part')\ndeadline.plan = plan"
)
NO_LOOK = (
    "from supervisor.watching import watchman\n"
    "def look(self): return {}['look']\n"
    "watchman.Watchman.look = look"
)


def test_a_broken_supervisor_has_the_memory_saved_and_says_so(supervise):
    """A transition fails while a worker lives: step 24 is on disk, the same command goes on after it."""
    run = supervise(KEEPS, program=program(NO_PLAN))
    run.wait_for("kept")
    run.send(signal.SIGTERM)
    assert run.end() == 70, run.err()
    assert processes_of(run) == []
    assert "step 24 is safe on disk; the same command resumes after step 24" in run.err()
    assert "Traceback" not in run.err()
    assert "KeyError: 'part'" in events(run, "broken")[0]["traceback"]
    assert [event["step"] for event in events(run, "saved")] == [24]
    again = supervise(
        TRAINING + "    assert list((me.config.directory / 'checkpoint' / 'rank_0').iterdir())\n"
    )
    assert again.end() == 0, again.err()


def test_a_part_that_always_fails_is_done_without(supervise):
    """Nobody can look after the training any more: that is said once, and the training comes to its end."""
    run = supervise(
        TRAINING + "    step(1); print('waits')\n    while not os.path.exists('go'): time.sleep(0.02)\n",
        program=program(NO_LOOK),
    )
    run.wait_for("waits")
    wait_until(lambda: events(run, "mishap"), "the fault is journalled")
    (run.folder / "go").touch()
    assert run.end() == 0, run.err()
    assert run.err().count("a fault of resilient-run itself") == 1


def test_a_fault_before_the_loop_is_one_of_ours(supervise):
    """It has a status of its own, and asks to be reported; 1 would be the script's."""
    run = supervise("", program=program("def supervise(*a): raise KeyError('x')\ncli.supervise = supervise"))
    assert run.end() == 70
    assert "resilient-run itself has failed (KeyError: 'x')" in run.err()
