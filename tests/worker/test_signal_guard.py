"""Who is called when a stop signal comes, and what follows: handlers that know of others before them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from resilient.worker.process.signals import SignalGuard

NUMBER = signal.SIGUSR1


class Theatre:
    """A guard in front of what a script has installed; what happens is written down in its order."""

    def __init__(self, monkeypatch):
        self.happened = []
        self.ready = True
        self.guard = SignalGuard(lambda: self.ready, lambda number: self.happened.append("saved"))
        monkeypatch.setattr(
            "resilient.worker.process.signals.die_of", lambda number: self.happened.append("died")
        )

    def chains(self, name):
        """A library installs a handler that calls the one it has found."""
        found = signal.getsignal(NUMBER)

        def handler(number, frame):
            self.happened.append(name)
            if callable(found):
                found(number, frame)
            elif found == signal.SIG_DFL:
                self.happened.append("default")

        signal.signal(NUMBER, handler)

    def send(self):
        os.kill(os.getpid(), NUMBER)
        return self.happened


@pytest.fixture
def theatre(monkeypatch):
    before = {number: signal.getsignal(number) for number in (NUMBER, signal.SIGINT)}
    theatre = Theatre(monkeypatch)
    yield theatre
    theatre.guard.restore()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_handler_that_hands_on_to_ours_ends_where_the_first_one_would(theatre):
    """Installed in front of ours, again and again: each is called once, and the default follows the save."""
    theatre.guard.install()
    for name in ("one", "two"):
        theatre.chains(name)
        theatre.guard.install()
        theatre.guard.install()
    assert theatre.send() == ["two", "one", "saved", "died"]
    assert theatre.send() == ["two", "one", "saved", "died"] * 2


def test_a_handler_of_the_scripts_ends_the_matter(theatre):
    """The script's own function was there first: the training goes on as that leaves it."""
    signal.signal(NUMBER, lambda number, frame: theatre.happened.append("script"))
    theatre.guard.install()
    theatre.chains("library")
    theatre.guard.install()
    assert theatre.send() == ["library", "script", "saved"]


def test_a_handler_that_does_not_hand_on_keeps_its_word(theatre):
    """It was installed in the place of whatever was there before, the default included."""
    theatre.guard.install()
    signal.signal(NUMBER, lambda number, frame: theatre.happened.append("script"))
    theatre.guard.install()
    assert theatre.send() == ["script", "saved"]


def test_a_second_signal_in_the_midst_of_the_first_is_the_same_request(theatre):
    """It comes while the script's handler is at work, which is not called again, nor what was before it."""

    def handler(number, frame):
        theatre.happened.append("script")
        if len(theatre.happened) < 5:
            os.kill(os.getpid(), NUMBER)

    theatre.guard.install()
    signal.signal(NUMBER, handler)
    theatre.guard.install()
    assert theatre.send() == ["script", "saved"]


def test_what_comes_in_a_step_waits_for_its_end(theatre):
    """The checkpoint, and what the signal stands for, follow at the boundary."""
    theatre.ready = False
    theatre.guard.install()
    theatre.chains("library")
    theatre.guard.install()
    assert theatre.send() == ["library"]
    theatre.guard.at_boundary()
    assert theatre.happened == ["library", "saved", "died"]


BROKEN_PIPE = """if True:
    import os, signal, socket, sys
    from resilient.wire.link import Link
    from resilient.worker.process.signals import PipeGuard
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link, reading_writing = Link(ours), os.pipe()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    guard = PipeGuard(lambda: link.is_over(0.1))
    guard.install()
    os.close(reading_writing[0])
    if sys.argv[1] == "gone":
        theirs.close()
    try:
        os.write(reading_writing[1], b"words")
    except BrokenPipeError:
        print("it saves")
    guard.restore()
    print(signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL)
"""


@pytest.mark.parametrize(
    ("supervisor", "code", "said"), [("gone", 0, "it saves\nTrue\n"), ("alive", -signal.SIGPIPE, "")]
)
def test_a_broken_pipe_ends_no_training_that_has_to_save_first(supervisor, code, said):
    """SIGPIPE at its default means the script's own pipes, and not those that died with the supervisor."""
    command = [sys.executable, "-c", BROKEN_PIPE, supervisor]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, said), done.stderr
