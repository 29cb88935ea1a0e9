"""Scripts that close descriptors which are not theirs: they run, and end, as by plain python."""

from __future__ import annotations

import pytest
from supervised import TRAINING, events

pytestmark = pytest.mark.process

CLOSER = (
    TRAINING
    + """
    import resource
    def loop_over_all():
        for number in [int(name) for name in os.listdir("/proc/self/fd")]:
            if number > 2:
                try:
                    os.close(number)
                except OSError:
                    pass
    def daemon_helper():
        os.closerange(3, 4096)
    {close}()
    mine = [open(f"mine-{{number}}", "wb") for number in range(50)]
    for number in range(1, 11):
        step(number)
    me.warn("nobody hears this")
    time.sleep({seconds})
    for file in mine:
        file.close()
    sizes = [os.path.getsize(file.name) for file in mine]
    assert sizes == [0] * 50, sizes
    print("through", flush=True)
"""
)


def test_a_helper_that_closes_the_low_numbers_does_not_reach_ours(supervise):
    """Ours have high numbers: the worker's messages come, and no line names a lost link."""
    run = supervise(CLOSER.format(close="daemon_helper", seconds=0))
    assert run.end() == 0, run.err()
    assert "nobody hears this" in run.err()
    assert events(run, "link_lost") == []


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_script_that_closes_all_is_complete_when_it_ends(supervise, seconds):
    """One attempt and status 0, whether the loss is seen at once or at the end; one line names it.

    None of our bytes is in the files that have got the numbers.
    """
    run = supervise(CLOSER.format(close="loop_over_all", seconds=seconds))
    assert run.end() == 0, run.err()
    assert run.out() == "through\n"
    assert run.err().count("closed a descriptor that was not its own") == 1
    assert len(events(run, "attempt")) == 1
    assert [event["kind"] for event in events(run, "incident_judged")] == ["finished"]


def test_a_mute_script_that_fails_is_started_again(supervise):
    """It is supervised without messages: its failure is seen, and its end is believed."""
    script = CLOSER.format(close="loop_over_all", seconds=0) + "    if attempt == 1: sys.exit(3)\n"
    run = supervise(script)
    assert run.end() == 0, run.err()
    assert [event["kind"] for event in events(run, "incident_judged")] == ["exited", "finished"]
    assert events(run, "incident_judged")[0]["step"] == 10
