"""The real supervisor, in any order of events: workers, time and disks are played, everything else is real.

What a run promises whatever happens: never two groups at once, each one collected, restarts within their
budget, every transition in the journal, and an end once somebody has asked for one.
"""

from __future__ import annotations

import itertools
import json
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_said import raised, resumed
from played import mirror_with

from chaos.played_worker import PlayedWorker
from chaos.stepped_clock import SteppedClock
from resilient.config import SAVE_SIGNAL, KeepPolicy, Sealing, WorkerConfig
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.wire.heartbeat import Heartbeat, Phase
from resilient.wire.messages import FirstStep, Hello, OpenStore, Resuming, ScriptEnded, TakeMirror
from supervisor.edges.journal_writer import JournalWriter
from supervisor.loop.loop import Supervisor
from supervisor.loop.machine import SupervisorState
from supervisor.loop.plan import Plan
from supervisor.telling.console import Console
from supervisor.telling.story import Story
from supervisor.verdict.restart import RestartPolicy
from supervisor.watching.watchman import Limits

GRACE_S = 10.0
BUDGET = 3
WINDOW_S = 1e9
GIGABYTE = 1024**3


class PlayedWorkers:
    """Starts workers that a test plays, and holds that there is one at a time."""

    def __init__(self):
        self.all = []
        self.pages = {}

    @property
    def alive(self):
        return [worker for worker in self.all if worker.reap() is None]

    make_worker = PlayedWorker

    def spawn(self, config, log, descriptors=()):
        assert not self.alive, "two groups at once"
        worker = self.make_worker()
        self.all.append(worker)
        self.pages[worker.pid] = Heartbeat(descriptors[0])
        # Every third one is as mute as a command that is none of ours.
        if len(self.all) % 3:
            worker.say(Hello(worker.pid))
        return worker

    def spawn_standby(self, config, log):
        raise OSError("none is played")

    def spawn_saver(self, config, log):
        raise OSError("none is played")

    def sweep(self, spared=()):
        return []

    def reap_orphans(self, workers):
        pass


class Theatre:
    """A supervisor on a stage where a test lets things happen."""

    def __init__(self, folder, workers=None):
        self.clock = SteppedClock()
        world = World(clock=self.clock)
        self.directory = RunDirectory(folder / "run", world)
        self.lock = self.directory.lock()
        self.workers = workers or PlayedWorkers()
        record = self.directory.open()
        config = WorkerConfig(run_id=record.run_id, directory=self.directory.root, seed=record.seed)
        story = Story(Console(quiet=True), self.clock, self.directory.root)
        self.journal = JournalWriter(self.directory.journal, self.clock, story.trouble)
        restart = RestartPolicy(BUDGET, WINDOW_S, min_s=1.0, max_s=4.0)
        plan = Plan(config, restart, GRACE_S, limits=Limits(20.0, GIGABYTE))
        self.supervisor = Supervisor(self.directory, plan, self.workers, story, self.journal, world)
        self.supervisor.begin()
        self.stopped = False

    @property
    def worker(self):
        return self.workers.alive[0] if self.workers.alive else None

    def settle(self):
        """Everything that is there to be dealt with, is."""
        for _ in range(3):
            if not self.supervisor.ended:
                self.supervisor.step(0)
        self.obey()

    def obey(self):
        """SIGKILL ends a process."""
        if self.worker is not None and signal.SIGKILL in self.worker.signals and not self.stuck:
            self.worker.die()
            if not self.supervisor.ended:
                self.supervisor.step(0)

    stuck = False

    def close(self):
        for worker in self.workers.all:
            worker.die()
        self.supervisor.close()
        self.journal.close()
        self.lock.release()

    # What may happen

    def say(self, message):
        if self.worker is not None:
            self.worker.say(message)

    def resume(self, step):
        self.say(Resuming(step, "CKP"))
        self.say(resumed(step))

    def progress(self, step):
        if self.worker is not None:
            self.workers.pages[self.worker.pid].beat(Phase.STEP, step)
        self.say(FirstStep(step))

    def incident(self, step):
        self.say(raised(step, loss_finite=step % 3 != 0))

    def finished(self, _):
        self.say(ScriptEnded(complete=True, status=0))

    def nonsense(self, _):
        if self.worker is not None:
            self.worker.other._socket.send(b'{"type": "save", "slot": "what?"}')

    def keep(self, step):
        """It keeps a step in a mirror; no saver can be started, so nothing of it is ever saved."""
        if self.worker is not None:
            mirror, _ = mirror_with(step + 1)
            self.say(OpenStore(self.directory.root, KeepPolicy(), Sealing()))
            self.worker.say(TakeMirror(), [mirror.memory.descriptor])
            mirror.close()

    def exit(self, code):
        if self.worker is not None:
            self.worker.die(code % 3)

    def killed(self, number):
        if self.worker is not None:
            self.worker.die(-[signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM][number % 3])

    def fatten(self, _):
        if self.worker is not None:
            self.worker.memory_bytes = 2 * GIGABYTE

    def wait(self, seconds):
        """Time passes as it does for a supervisor that is awake."""
        for _ in range(2 * seconds):
            self.clock.advance(2.0)
            if not self.supervisor.ended:
                self.supervisor.step(0)
                self.obey()

    def pass_s(self, seconds):
        """The same, second by second; what was sent on the way is dealt with."""
        for _ in range(seconds):
            self.settle()
            self.clock.advance(1.0)
        self.settle()

    def sleep(self, hours):
        """The machine was suspended."""
        self.clock.advance(3600.0 * hours)

    def jump(self, seconds):
        self.clock.jump(1e7 * (seconds - 5))

    def hold(self, _):
        """The kernel does not let go of it any more."""
        if self.worker is not None:
            self.stuck = True

    def let_go(self, _):
        self.stuck = False

    def request(self, which):
        self.supervisor.hear_signals(bytes([[signal.SIGQUIT, SAVE_SIGNAL][which % 2]]))

    def stop(self, which):
        self.stopped = True
        self.supervisor.hear_signals(bytes([[signal.SIGTERM, signal.SIGINT, signal.SIGUSR1][which % 3]]))


HAPPENINGS = [
    *["resume", "progress", "progress", "incident", "finished", "nonsense", "exit", "killed", "fatten"],
    *["keep", "wait", "wait", "wait", "wait", "sleep", "jump", "hold", "let_go", "request", "stop"],
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 12)), max_size=40))
def test_whatever_happens_a_run_keeps_its_rules(happenings):
    """Any events in any order; and then a stop, with processes that die or that the kernel holds."""
    with tempfile.TemporaryDirectory() as folder:
        theatre = Theatre(Path(folder))
        try:
            for name, value in happenings:
                theatre.settle()
                if theatre.supervisor.ended:
                    break
                getattr(theatre, name)(value)
            end(theatre)
            judge(theatre)
        finally:
            theatre.close()


def end(theatre):
    """Asks for the end; it comes within the grace, and what a process in the kernel's hands is given."""
    theatre.settle()
    if not theatre.supervisor.ended:
        theatre.stop(0)
    for _ in range(200):
        theatre.settle()
        if theatre.supervisor.ended:
            return
        theatre.clock.advance(1.0)
    raise AssertionError("asked to stop, it goes on for ever")


def judge(theatre):
    lines = [json.loads(line) for line in theatre.directory.journal.read_text().splitlines()]
    transitions = [line for line in lines if line["event"] == "transition"]
    assert transitions[0]["of"] == SupervisorState.NEW.value
    assert transitions[-1]["to"] == SupervisorState.ENDED.value
    assert all(a["to"] == b["of"] for a, b in itertools.pairwise(transitions))
    assert lines[-1]["event"] == "ended"
    # Each attempt is journalled, judged once, and collected unless the kernel holds it.
    attempts = [line["attempt"] for line in lines if line["event"] == "attempt"]
    judged = [line["attempt"] for line in lines if line["event"] == "incident_judged"]
    assert attempts == judged == list(range(1, len(theatre.workers.all) + 1))
    left = {name for line in lines if line["event"] == "left_behind" for name in line["processes"]}
    assert all(worker.finished for worker in theatre.workers.all if f"process {worker.pid}" not in left)
    # Two budgets, the run's own and that of what others did; nothing here is ever durable.
    judgments = [line for line in lines if line["event"] == "incident_judged"]
    restarts = [line for line in judgments if line["restart_in_s"] is not None]
    # Once asked to stop, nothing is granted any more: the lines are in the order of what happened.
    asked = next((n for n, line in enumerate(lines) if line["event"] == "stop_requested"), len(lines))
    assert not any(line in restarts for line in lines[asked:])
    outside = [line for line in restarts if line["kind"] == "killed"]
    assert len(outside) <= BUDGET
    assert len(restarts) - len(outside) <= BUDGET
    assert theatre.directory.open().status in ("complete", "stopped", "failed")


@pytest.mark.parametrize("late_s", [2, 6])
def test_what_was_stopped_has_time_to_wake_up(tmp_path, late_s):
    """A busy machine may be late with it: it is not started again because of that."""
    with hung(tmp_path, "T") as theatre:
        theatre.pass_s(late_s - 1)
        theatre.progress(2)
        theatre.pass_s(3)
        assert names(theatre)[-1] == "moves"
        assert not {signal.SIGTERM, signal.SIGKILL} & set(theatre.worker.signals)


def test_a_beat_of_the_same_phase_is_life(tmp_path):
    """A loop of an evaluation comes round to where it was, and completes no step: it is left alone."""
    with hung(tmp_path, "S") as theatre:
        theatre.pass_s(1)
        theatre.workers.pages[theatre.worker.pid].beat(Phase.STEP)
        theatre.pass_s(2)
        assert names(theatre)[-1] == "moves"
        assert not {signal.SIGTERM, signal.SIGKILL} & set(theatre.worker.signals)


@pytest.mark.parametrize(("state", "at_s"), [("S", 2), ("T", 10)])
def test_what_does_not_move_is_ended(tmp_path, state, at_s):
    """At once where nothing had stopped it, else when it has had its time."""
    with hung(tmp_path, state) as theatre:
        theatre.pass_s(at_s - 1)
        assert signal.SIGTERM not in theatre.worker.signals
        theatre.pass_s(2)
        assert signal.SIGTERM in theatre.worker.signals


@contextmanager
def hung(folder, state):
    """A theatre whose worker, in this state, was just found to hang after step 1."""
    theatre = Theatre(folder)
    try:
        theatre.settle()
        theatre.progress(1)
        theatre.worker.state = state
        while signal.SIGCONT not in theatre.worker.signals:
            theatre.pass_s(1)
        yield theatre
    finally:
        theatre.close()


def names(theatre):
    """What the journal tells, but for the machine's own transitions."""
    lines = map(json.loads, theatre.directory.journal.read_text().splitlines())
    return [line["event"] for line in lines if line["event"] != "transition"]
