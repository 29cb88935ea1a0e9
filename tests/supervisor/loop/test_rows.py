"""Each row of the supervisor's table happens: some life of the real supervisor takes it."""

from __future__ import annotations

import signal

import pytest
from played import OPENED, committed
from test_loop_lives import PlayedWorkers, Theatre

from chaos.played_worker import PlayedWorker
from resilient.wire.messages import UsageRefused
from supervisor.edges import wakeup
from supervisor.loop.machine import TABLE, Machine, SupervisorEvent, SupervisorState


class PlayedSavers(PlayedWorkers):
    """Workers with a saver that a test plays, unless it ``refuses`` to start."""

    def __init__(self):
        super().__init__()
        self.savers = []
        self.refuses = False

    def spawn_saver(self, config, log):
        if self.refuses:
            raise OSError("no more processes")
        self.savers.append(PlayedWorker())
        return self.savers[-1]


class Life(Theatre):
    """The life of one supervisor. The methods with a state's name take it there."""

    def __init__(self, folder):
        super().__init__(folder, PlayedSavers())
        self.settle()

    def close(self):
        super().close()
        for saver in self.workers.savers:
            saver.die()

    def new(self):
        """It has begun already."""

    def running(self):
        self.progress(1)
        self.settle()

    def waiting(self):
        self.running()
        self.fail()

    def looking(self):
        self.running()
        while signal.SIGCONT not in self.worker.signals:
            self.pass_s(1)

    def replacing(self):
        self.looking()
        self.pass_s(3)

    def clearing(self):
        self.replacing()
        self.hold(0)
        self.pass_s(11)

    def stopping(self):
        self.running()
        self.interrupt()

    def killing(self):
        self.stopping()
        self.hold(0)
        self.interrupt()

    def saving(self):
        self.running()
        self.keep(1)
        self.settle()
        self.finish()

    def ended(self):
        self.running()
        self.finish()

    # What happens there

    def fail(self):
        self.worker.die(-signal.SIGSEGV)
        self.settle()

    def finish(self):
        self.worker.say(UsageRefused("no such file"))
        self.settle()
        self.worker.die(64)
        self.settle()

    def interrupt(self):
        self.supervisor.hear_signals([signal.SIGINT])

    def fail_with_its_memory_unsaved(self):
        self.pass_s(5)
        self.workers.refuses = True
        self.keep(2)
        self.settle()
        self.fail()

    def save(self):
        for answer in (OPENED, committed(2)):
            self.workers.savers[-1].say(answer)
            self.settle()

    def finish_while_a_signal_comes(self):
        """The same look finds the group's end and a signal."""
        self.worker.say(UsageRefused("no such file"))
        self.settle()
        with wakeup.signals(self.supervisor._selector, self.supervisor.hear_signals):
            self.worker.die(64)
            signal.raise_signal(signal.SIGTERM)
            self.supervisor.step(0)

    def hear_both(self):
        """Two signals have come, and the first ends the run."""
        self.supervisor.hear_signals([signal.SIGTERM, signal.SIGINT])


LIVES = {
    (SupervisorState.NEW, SupervisorEvent.BEGIN): Life.new,
    (SupervisorState.RUNNING, SupervisorEvent.GROUP_FAILED): Life.fail,
    (SupervisorState.RUNNING, SupervisorEvent.GROUP_OVER): Life.finish,
    (SupervisorState.RUNNING, SupervisorEvent.HUNG): lambda life: life.pass_s(60),
    (SupervisorState.RUNNING, SupervisorEvent.TOO_LARGE): lambda life: (life.fatten(0), life.pass_s(2)),
    (SupervisorState.RUNNING, SupervisorEvent.STOP): Life.interrupt,
    (SupervisorState.WAITING, SupervisorEvent.BACKOFF_OVER): lambda life: life.pass_s(5),
    (SupervisorState.WAITING, SupervisorEvent.NOT_READY): lambda life: (
        life.fail_with_its_memory_unsaved(),
        life.pass_s(5),
    ),
    (SupervisorState.WAITING, SupervisorEvent.HOPELESS): lambda life: (
        life.fail_with_its_memory_unsaved(),
        life.pass_s(700),
    ),
    (SupervisorState.WAITING, SupervisorEvent.STOP): Life.interrupt,
    (SupervisorState.LOOKING, SupervisorEvent.MOTIONLESS): lambda life: life.pass_s(3),
    (SupervisorState.LOOKING, SupervisorEvent.MOVES): lambda life: (life.progress(2), life.pass_s(3)),
    (SupervisorState.LOOKING, SupervisorEvent.GROUP_FAILED): Life.fail,
    (SupervisorState.LOOKING, SupervisorEvent.GROUP_OVER): Life.finish,
    (SupervisorState.LOOKING, SupervisorEvent.STOP): Life.interrupt,
    (SupervisorState.REPLACING, SupervisorEvent.GROUP_FAILED): Life.fail,
    (SupervisorState.REPLACING, SupervisorEvent.GROUP_OVER): Life.finish,
    (SupervisorState.REPLACING, SupervisorEvent.GRACE_OVER): lambda life: life.pass_s(11),
    (SupervisorState.REPLACING, SupervisorEvent.STOP): Life.interrupt,
    (SupervisorState.CLEARING, SupervisorEvent.GROUP_FAILED): Life.fail,
    (SupervisorState.CLEARING, SupervisorEvent.GROUP_OVER): Life.finish,
    (SupervisorState.CLEARING, SupervisorEvent.GRACE_OVER): lambda life: life.pass_s(11),
    (SupervisorState.CLEARING, SupervisorEvent.HOPELESS): lambda life: life.pass_s(700),
    (SupervisorState.CLEARING, SupervisorEvent.STOP): Life.interrupt,
    (SupervisorState.STOPPING, SupervisorEvent.GROUP_OVER): Life.fail,
    (SupervisorState.STOPPING, SupervisorEvent.LATE): lambda life: life.pass_s(9),
    (SupervisorState.STOPPING, SupervisorEvent.GRACE_OVER): lambda life: life.pass_s(11),
    (SupervisorState.STOPPING, SupervisorEvent.INSIST): Life.interrupt,
    (SupervisorState.KILLING, SupervisorEvent.GROUP_OVER): Life.fail,
    (SupervisorState.KILLING, SupervisorEvent.GRACE_OVER): lambda life: life.pass_s(11),
    (SupervisorState.KILLING, SupervisorEvent.INSIST): Life.interrupt,
    (SupervisorState.SAVING, SupervisorEvent.SETTLED): Life.save,
    (SupervisorState.SAVING, SupervisorEvent.GRACE_OVER): lambda life: life.pass_s(200),
    (SupervisorState.SAVING, SupervisorEvent.STOP): Life.interrupt,
    (SupervisorState.SAVING, SupervisorEvent.INSIST): lambda life: (life.interrupt(), life.interrupt()),
    (SupervisorState.ENDED, SupervisorEvent.STOP): Life.finish_while_a_signal_comes,
    (SupervisorState.ENDED, SupervisorEvent.INSIST): Life.hear_both,
}
"""What makes each row happen, once a life is in its state."""

BEFORE = {
    (SupervisorState.ENDED, SupervisorEvent.STOP): SupervisorState.RUNNING,
    (SupervisorState.ENDED, SupervisorEvent.INSIST): SupervisorState.WAITING,
}
"""A life that is over hears nothing, but for what came while it ended."""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0].name}-{row[1].name}")
def test_each_row_of_the_table_happens(tmp_path, monkeypatch, row):
    """A life that is in the row's state meets the row's event."""
    taken, real = [], Machine.feed

    def feed(machine, event):
        taken.append((machine.state, event))
        return real(machine, event)

    monkeypatch.setattr(Machine, "feed", feed)
    life = Life(tmp_path)
    try:
        before = BEFORE.get(row, row[0])
        getattr(life, before.name.lower())()
        assert before in (SupervisorState.NEW, life.supervisor._helm.state)
        LIVES[row](life)
        assert row in taken
    finally:
        life.close()
