"""The loop: waits for the next event, and does what the machine's table says.

It sleeps until a worker ends (its pidfd) or says something (its link), a signal comes, or a timer is due.
Judgments are made elsewhere: whether a worker hangs (``watchman``), why an attempt ended and what follows
(``judge``), whether the machine is fit for another (``readiness``), what is said about it (``story``).
"""

from __future__ import annotations

import selectors
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from resilient.errors import EXIT_BROKEN, StorageError
from resilient.host.world import World
from resilient.run import rundir
from resilient.run.rundir import RunDirectory
from supervisor.edges import wakeup
from supervisor.edges.journal import Journal
from supervisor.edges.timers import Timers
from supervisor.loop import on_request
from supervisor.loop.conclusion import conclude
from supervisor.loop.emergency_save import Farewell
from supervisor.loop.hung import Hung
from supervisor.loop.internal_errors import MOST_IN_A_ROW, Broken, Mishaps, words_of
from supervisor.loop.listeners import Hearing
from supervisor.loop.lost_link import Muteness
from supervisor.loop.machine import Action, Event, Machine, State
from supervisor.loop.pause import Pause
from supervisor.loop.plan import Plan, changes
from supervisor.loop.postmortem import Inquest
from supervisor.saves.durable_steps import Shelf
from supervisor.saves.rescue import Rescue
from supervisor.saves.save_requests import Commits
from supervisor.telling.story import Story
from supervisor.verdict import deadline
from supervisor.verdict.classify import Evidence
from supervisor.verdict.judge import Judge
from supervisor.verdict.readiness import Obstacle
from supervisor.verdict.restart import Verdict
from supervisor.verdict.standing import Standing
from supervisor.watching.watchman import Watchman
from supervisor.workers.launcher import Launcher
from supervisor.workers.standby import Standby
from supervisor.workers.workers import Worker, Workers

_STUCK_S = 10.0
_HOPELESS_S = 600.0


class Supervisor:
    """Runs the attempts of one run until it is complete, stopped or given up."""

    def __init__(
        self,
        directory: RunDirectory,
        plan: Plan,
        workers: Workers,
        story: Story,
        journal: Journal,
        world: World,
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._mishaps = Mishaps(journal, story)
        self._story = story = self._mishaps.unfailing(story)
        self._journal = journal = self._mishaps.unfailing(journal)
        self._machine = Machine()
        self._timers = Timers(world.clock)
        self._clock = world.clock
        self._record = directory.open()
        self._selector = selectors.DefaultSelector()
        self._judge = Judge(plan.restart, plan.trials(directory, world, story.trouble), journal, world)
        spawn_saver = partial(workers.spawn_saver, log=directory.saver_log)
        self._commits = Commits(plan.worker, spawn_saver, self._selector, self)
        self._farewell = Farewell(spawn_saver, story, journal, plan.grace_s)
        self._watchman = Watchman(plan.limits, directory, plan.worker.keep, world, journal.pen.probe)
        self._hearing = Hearing(self._judge, journal, self._watchman, story, self._mishaps)
        self._standby = Standby(workers.spawn_standby, self._selector, self._hearing.standby, story.trouble)
        self._launcher = Launcher(directory, workers, self._standby, self._selector, world.clock, self)
        self._shelf = Shelf(plan.worker, world, lambda: (self._record.checkpoints, self._judge.origin))
        muteness = Muteness(self._timers, self._launcher, self._commits, self._hearing, self._shelf)
        self._inquest = Inquest(self._judge, self._commits, self._watchman, muteness, self._mishaps)
        self._stop_signal = 0
        self._end_s = self._killed_s = 0.0
        self._rescue = Rescue(self._timers, world.clock, self._commits, self._judge, self)
        self._pause = Pause(self._timers, world.clock, self._rescue.obstacle, self._feed, self._judge.give_up)
        self._hung = Hung(self._timers, world.clock, self._watchman, self._feed)
        self._actions: Mapping[Action, Callable[[], None]] = {
            Action.LAUNCH: self._launch,
            Action.WAIT: self._wait,
            Action.WAIT_LONGER: self._wait_longer,
            Action.TAKE_STACKS: lambda: self._hung.begin(self._launcher.present),
            Action.GO_ON: self._go_on,
            Action.END: self._end_group,
            Action.FORWARD: self._forward,
            Action.SECURE: self._secure,
            Action.KILL: self._kill,
            Action.LOOK_AGAIN: self._look_again,
            Action.ABANDON: self._abandon,
            Action.AWAIT_SAVE: self._await_save,
            Action.FINISH: self._finish,
        }
        self.status = 0

    def run(self) -> int:
        """Supervises to the end; the exit status."""
        with self._selector, wakeup.signals(self._selector, self.hear_signals):
            self._journal.pen.watch(self._selector)
            try:
                self.begin()
                while not self.ended:
                    self.step(self._timers.wait_s)
            except BaseException as error:  # noqa: BLE001 - the training must not die of a fault of ours
                self.break_down(error)
            finally:
                self.close()
                # The run has its status: a signal must not interrupt its last writes and words.
                wakeup.deafen()
        return self.status

    def begin(self) -> None:
        """Launches the first group."""
        with self._mishaps.contained("the record of earlier trials"):
            if concluded := self._judge.open(self._record.attempts):
                self._story.trouble(concluded)
        self._feed(Event.BEGIN)

    @property
    def ended(self) -> bool:
        """Whether the run is over; ``status`` is the exit status then."""
        return self._machine.state is State.ENDED

    def break_down(self, error: BaseException) -> None:
        """We cannot go on: has the memory saved without the loop, and ends the run."""
        self.status = EXIT_BROKEN
        self._farewell.bid(error, self._launcher.group, self._commits, self._judge.durable_step)
        with self._mishaps.contained("the record of the run"):
            self._update(status=rundir.FAILED)

    def close(self) -> None:
        """Whatever went wrong with us, nothing of the run is left behind."""
        parts = self._commits.close, self._standby.close, self._launcher.clear_away, self._watchman.close
        for act in parts:
            with self._mishaps.contained("the clearing away"):
                act()
        self._tell_left(self._launcher.left)

    # Waiting

    def step(self, wait_s: float | None) -> None:
        """Waits so long for an event, for ever with None, and deals with what there is."""
        for key, _ in self._selector.select(wait_s):
            # One handler may have closed what the next one is about, and its number may be another's by now.
            if self._selector.get_map().get(key.fd) is key:
                with self._mishaps.contained(f"what descriptor {key.fd} told", MOST_IN_A_ROW):
                    key.data()
        self._timers.fire(self._mishaps.timer)

    def _feed(self, event: Event) -> None:
        before = self._machine.state
        try:
            actions = self._machine.feed(event)
            if before is not self._machine.state:
                after = self._machine.state
                self._journal.write("transition", of=before.value, on=event.value, to=after.value)
            for action in actions:
                self._actions[action]()
        except Exception as error:
            # Half a transition: whatever we did next would rest on what is not so.
            raise Broken(f"the transition from {before.value} on {event.value} failed") from error

    def _later(self, delay_s: float, event: Event) -> None:
        """The one thing that happens when nothing else does."""
        self._timers.set("machine", delay_s, lambda: self._feed(event))

    def hear_signals(self, numbers: Collection[int]) -> None:
        """Deals with signals that came, by their numbers."""
        for number in numbers:
            with self._mishaps.contained(f"the signal {number}"):
                self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._launcher.reap_orphans(self._commits.pids)
        elif number in wakeup.STOP_SIGNALS:
            self._on_stop(number)
        elif number in wakeup.REQUESTS:
            running = self._launcher.attempt if self._machine.state is State.RUNNING else None
            on_request.pass_on(number, running, self._journal, self._story)

    def _on_stop(self, number: int) -> None:
        # A scheduler may repeat its signal, or send it to all of a job; a second Ctrl-C is a person's will.
        insists = bool(self._stop_signal) and number == signal.SIGINT
        if self._stop_signal and not insists:
            return
        self._journal.write("stop_requested", signal=signal.Signals(number).name)
        self._stop_signal = self._inquest.stop_signal = self._stop_signal or number
        self._feed(Event.INSIST if insists else Event.STOP)

    @property
    def _standing(self) -> Standing:
        return self._judge.standing(self._commits.kept_step)

    # Attempts

    def _launch(self) -> None:
        number = self._record.attempts + 1
        self._update(attempts=number, status=rundir.RUNNING)
        self._judge.begin(number)
        config = self._plan.for_attempt(self._judge.origin, self._record, self._judge.durable_step)
        try:
            memory = self._commits.offer(self._standing)
            attempt = self._launcher.launch(config, memory)
        except Exception as error:  # noqa: BLE001 - an attempt less, whatever kept it from starting
            why = str(error) if isinstance(error, OSError) else words_of(error)
            self._journal.write("spawn_failed", attempt=number, error=why)
            self._conclude(self._inquest.judge(Evidence(None, error=why)))
            return
        self._journal.write("attempt", attempt=number, pid=attempt.workers[0].pid)
        self._story.attempt(attempt)
        with self._mishaps.contained("the watchman"):
            self._watchman.begin(attempt)
        self._watch_from(0.0)

    def _watch_from(self, delay_s: float) -> None:
        # Always by its timer: a fault of the watchman is not one of the machine.
        self._timers.set("watch", delay_s, self._watch)

    def _watch(self) -> None:
        """Looks after a group at work, from time to time."""
        if self._machine.state is not State.RUNNING:
            return
        if full := self._watchman.disk.warning():
            self._journal.write("warning", text=full)
            self._story.trouble(full)
        found = self._watchman.look()
        if found is not None:
            self._journal.write(found.event, **found.fields)
            self._story.trouble(found.text)
            self._feed(Event.HUNG if found.event == "hang" else Event.TOO_LARGE)
        else:
            self._watch_from(self._watchman.next_look_s)

    def on_message(self, worker: Worker, message: dict[str, Any], descriptors: list[int]) -> None:
        """A worker has said something: about saving, or about itself."""
        with self._mishaps.contained("a message"):
            if not self._commits.hear(worker, message, descriptors) and self._hearing.understands(message):
                self.heard(worker, message)

    def heard(self, worker: Worker | None, message: Mapping[str, Any]) -> None:
        """Takes note of what a worker has said, or (None) of what is said of one that lives no more."""
        attempt = self._launcher.attempt
        alive = attempt is not None and worker in attempt.workers
        self._hearing.hear(message, attempt if alive else None, lambda: self._react(worker, message))

    def _react(self, worker: Worker | None, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "resuming" and worker is not None:
            # The worker waits for that, and not we: the disk may not answer.
            self._journal.pen.after(partial(self._commits.answer, worker, {"type": "recorded"}))
        elif kind == "progress" and self._plan.standby and self._machine.state is State.RUNNING:
            # The first step is complete: the start is over.
            self._launcher.prepare_standby(self._plan.worker, self._record.attempts + 1)
        if changed := changes(self._record, message):
            self._update(**changed)
        self._plan.hear_saved(message)

    def settled(self) -> None:
        """Nothing is being saved any more."""
        if self._machine.state is State.SAVING and not self._rescue.holds_end():
            self._feed(Event.SETTLED)

    def on_over(self) -> None:
        """The group has ended."""
        self._timers.cancel("watch")
        with self._mishaps.contained("the clearing away"):
            self._launcher.clear_away(self._commits.pids)
        self._tell_left(self._launcher.left)
        with self._mishaps.contained("the last words of an attempt"):
            self._launcher.finish()
        self._conclude(self._inquest.hold(self._launcher.present))

    def _conclude(self, verdict: Verdict) -> None:
        """A group that is over was judged."""
        self._feed(Event.GROUP_OVER if verdict.delay_s is None else Event.GROUP_FAILED)

    # What the table asks for: between two groups

    def _wait(self) -> None:
        verdict, attempt = self._judge.verdict, self._launcher.attempt
        assert verdict.delay_s is not None
        self._pause.begin(verdict.delay_s)
        self._story.restarting(self._judge.incident, verdict, attempt, self._standing)

    def look_around(self) -> Obstacle | None:
        """What of the machine stands in the way of another group."""
        return self._watchman.obstacle(self._launcher.left)

    def held_up(self, what: str, reason: str) -> None:
        """Something has to wait."""
        self._journal.write("waiting", reason=reason)
        self._story.held_up(reason, what)

    def _wait_longer(self) -> None:
        self.held_up("the restart", self._pause.reason)
        self._pause.go_on()

    # ... a group that is to make room for the next

    def _go_on(self) -> None:
        self._journal.write("moves")
        self._story.moves()
        self._watch_from(0.0)

    def _end_group(self) -> None:
        self._launcher.present.send(signal.SIGTERM)
        self._launcher.present.send(signal.SIGCONT)
        self._later(self._plan.grace_s, Event.GRACE_OVER)

    def _look_again(self) -> None:
        if self._clock.monotonic() - self._killed_s >= _HOPELESS_S:
            self._feed(Event.HOPELESS)
        else:
            self._story.unkillable()
            self._later(_STUCK_S, Event.GRACE_OVER)

    # ... a group that is to end with the run

    def _forward(self) -> None:
        attempt = self._launcher.present
        # First of all: the grace runs already, and is the worker's.
        attempt.send(self._stop_signal)
        attempt.send(signal.SIGCONT)
        self._timers.cancel("watch")
        grace_s = self._plan.grace_s
        self._story.stopping(self._stop_signal, grace_s)
        parts = deadline.plan(grace_s, self._commits.cost)
        self._end_s = self._clock.monotonic() + parts.end_s
        self._timers.set("secure", parts.secure_s, lambda: self._feed(Event.LATE))
        self._later(parts.kill_s, Event.GRACE_OVER)

    def _secure(self) -> None:
        """No step boundary was reached in time: the newest state in memory is committed."""
        reason = signal.Signals(self._stop_signal).name
        self._commits.save_newer(self._standing, reason, failure=True)

    def _kill(self) -> None:
        self._timers.cancel("secure")
        self._killed_s = self._clock.monotonic()
        self._story.killing()
        self._journal.write("killed", why=self._machine.state.value)
        self._launcher.present.send(signal.SIGKILL)
        # Stopped by a signal it dies as well; frozen or asleep in the kernel it does not.
        self._later(_STUCK_S, Event.GRACE_OVER)

    def _abandon(self) -> None:
        attempt = self._launcher.present
        self._tell_left([worker.pid for worker in attempt.workers])
        self._launcher.abandon()
        self._inquest.hold(attempt, code=-signal.SIGKILL)
        self._judge.give_up("the kernel holds one of its processes")

    def _tell_left(self, pids: list[int]) -> None:
        if pids:
            self._story.left_behind(pids)
            self._journal.write("left_behind", processes=[f"process {pid}" for pid in pids])

    # ... and the end

    def _await_save(self) -> None:
        self._timers.cancel("machine")
        self._timers.cancel("secure")
        if not self._commits.busy and not self._rescue.holds_end():
            self._feed(Event.SETTLED)
            return
        left_s = max(self._commits.cost.patience_s, self._rescue.left_s)
        if self._stop_signal:
            now_s = self._clock.monotonic()
            left_s = max(0.0, (self._end_s or now_s + self._plan.grace_s) - now_s)
        self._later(left_s, Event.GRACE_OVER)

    def _finish(self) -> None:
        self._timers.cancel_all()
        lost = self._commits.unsaved(self._standing)
        attempt, number = self._launcher.attempt, self._stop_signal
        ending = conclude(self._judge, attempt, number, self._story, lost, self._shelf.newest_step())
        self.status = ending.status
        self._update(status=ending.record)
        self._journal.write("ended", status=self.status, **({"lost": lost} if lost else {}))

    def _update(self, **changes: Any) -> None:
        """Changes the run's record; a disk that is full now must not end the run."""
        self._record = replace(self._record, **changes)
        try:
            self._directory.write(self._record)
        except StorageError as error:
            self._story.trouble(f"run.json cannot be written: {error}")
