"""What a worker says reaches the supervisor whatever its length, and whatever the supervisor is doing."""

from __future__ import annotations

import os
import signal

import pytest
from supervised import TRAINING, events, is_alive, wait_until

pytestmark = pytest.mark.process

LONG = "'\\u8bad' * 11000"
WITHOUT_PATIENCE = (
    TRAINING
    + "    from resilient.wire import outbox\n"
    + "    from resilient.saving import remote\n"
    + "    outbox.PATIENCE_S = 0.1\n"
)


@pytest.mark.parametrize(("loss_finite", "kind"), [("True", "exception"), ("False", "numerical")])
def test_an_exception_with_a_long_text_is_judged_by_it(supervise, loss_finite, kind):
    """Its text is cut in the middle, with a mark; what decides is all there."""
    run = supervise(
        TRAINING + f"    step(3)\n    error = ValueError({LONG})\n"
        f"    try: raise error\n"
        f"    except ValueError: me.tell_incident(error, 'exception', 3, 'step', loss_finite={loss_finite})\n"
        f"    raise error\n",
        "--max-restarts",
        "0",
    )
    assert run.end() == 1
    (judged,) = events(run, "incident_judged")
    assert judged["kind"] == kind
    assert judged["cause"].startswith("ValueError: \u8bad\u8bad")
    (incident,) = events(run, "incident")
    assert "9000 characters left out" in incident["message"]
    assert incident["traceback"].startswith("Traceback")


def test_an_exception_without_a_text_is_told_all_the_same(supervise):
    """A class of the script's fails to say what it is about: that does not hide the exception."""
    script = "class Mute(Exception):\n    def __str__(self): raise OSError('mute')\nraise Mute\n"
    run = supervise(script, "--max-restarts", "0")
    assert run.end() == 1
    assert events(run, "incident_judged")[0]["cause"].startswith("Mute: <its text cannot be had")


def test_a_worker_does_not_wait_for_ever_for_a_frozen_supervisor(supervise):
    """It says more than the kernel keeps, fails, and ends; woken up, the supervisor judges what there is."""
    run = supervise(
        WITHOUT_PATIENCE
        + "    step(1); print('ready', os.getpid())\n    while not os.path.exists('go'): time.sleep(0.02)\n"
        + "    for n in range(800): me.remark(str(n) + 'x' * 1000)\n"
        + "    raise ValueError('bad')\n",
        "--max-restarts",
        "0",
    )
    run.wait_for("ready")
    pid = events(run, "attempt")[0]["pid"]
    run.send(signal.SIGSTOP)
    (run.folder / "go").touch()
    wait_until(lambda: not is_alive(pid), "the worker ends")
    run.send(signal.SIGCONT)
    assert run.end() == 1
    remarks = [event["text"].rstrip("x") for event in events(run, "remark")]
    assert remarks == [str(number) for number in range(len(remarks))]
    assert os.getpid() != pid
