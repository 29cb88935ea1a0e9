"""The loop: waits for the next event, and does what the machine's table says.

It sleeps until a worker ends (its pidfd) or says something (its link), a signal comes, or a timer is due.
Judgments are made elsewhere: whether a worker hangs (``watchman``), why an attempt ended and what follows
(``judge``), whether the machine is fit for another (``readiness``), what is said about it (``story``).
"""

from __future__ import annotations

import selectors
import signal
from collections.abc import Callable, Collection, Mapping
from functools import partial

from resilient.errors import EXIT_BROKEN
from resilient.host.world import World
from resilient.journal.events import StopRequested
from resilient.run import rundir
from resilient.run.rundir import RunDirectory
from supervisor.checkpointing.durable_steps import DurableSteps
from supervisor.checkpointing.rescue import Rescue
from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.edges import wakeup
from supervisor.edges.journal_writer import JournalWriter
from supervisor.edges.timers import Timers
from supervisor.group.launcher import Launcher
from supervisor.group.standby import Standby
from supervisor.group.worker_processes import Workers
from supervisor.loop import on_request
from supervisor.loop.conclusion import Conclusion
from supervisor.loop.crew import Crew
from supervisor.loop.emergency_save import EmergencySave
from supervisor.loop.helm import Helm
from supervisor.loop.hung_group import HungGroup
from supervisor.loop.instruments import Instruments
from supervisor.loop.internal_errors import MOST_IN_A_ROW, InternalErrors
from supervisor.loop.last_save import LastSave
from supervisor.loop.listeners import Listeners
from supervisor.loop.lost_link import LostLink
from supervisor.loop.machine import SupervisorAction, SupervisorEvent, SupervisorState
from supervisor.loop.next_attempt import NextAttempt
from supervisor.loop.patrol import Patrol
from supervisor.loop.pause import Pause
from supervisor.loop.plan import Plan
from supervisor.loop.postmortem import Postmortem
from supervisor.loop.reactions import Reactions
from supervisor.loop.reception import Reception
from supervisor.loop.removal import Removal
from supervisor.loop.run_book import RunBook
from supervisor.loop.stop_request import StopRequest
from supervisor.telling.story import Story
from supervisor.verdict.judge import Judge
from supervisor.watching.watchman import Watchman


class Supervisor:
    """Runs the attempts of one run until it is complete, stopped or given up."""

    def __init__(
        self,
        directory: RunDirectory,
        plan: Plan,
        workers: Workers,
        story: Story,
        journal: JournalWriter,
        world: World,
    ) -> None:
        # Tools that everybody shares.
        self._internal_errors = InternalErrors(journal, story)
        self._story = story = self._internal_errors.unfailing(story)
        self._journal = journal = self._internal_errors.unfailing(journal)
        self._timers = Timers(world.clock)
        instruments = Instruments(journal, story, self._internal_errors, self._timers, world.clock)
        self._instruments = instruments
        self._helm = helm = Helm(instruments, lambda action: self._actions[action]())
        self._stop = stop = StopRequest(world.clock, plan.grace_s)
        self._book = book = RunBook(directory, plan, story.trouble)
        self._selector = selectors.DefaultSelector()
        # The crew, and who hears it.
        self._judge = Judge(plan.restart, plan.trials(directory, world, story.trouble), journal, world)
        spawn_saver = partial(workers.spawn_saver, log=directory.saver_log)
        self._emergency_save = EmergencySave(spawn_saver, story, journal, plan.grace_s)
        self._watchman = Watchman(plan.limits, directory, plan.worker.keep, world, journal.writer.probe)
        self._listeners = Listeners(self._judge, journal, self._watchman, story, self._internal_errors)
        self._standby = Standby(workers.spawn_standby, self._selector, self._listeners.standby, story.trouble)
        self._launcher = Launcher(directory, workers, self._standby, self._selector, world.clock)
        self._reactions = reactions = Reactions(journal, helm, book, self._listeners, self._launcher)
        self._save_requests = SaveRequests(
            plan.worker, spawn_saver, self._selector, reactions, self._on_settled
        )
        durable_steps = DurableSteps(plan.worker, world, lambda: (book.places, self._judge.origin))
        lost_link = LostLink(
            self._timers, self._launcher, self._save_requests, self._listeners, durable_steps
        )
        crew = Crew(self._launcher, self._save_requests, self._watchman, self._judge)
        self._postmortem = Postmortem(instruments, helm, crew, lost_link, stop)
        self._launcher.attend(
            Reception(self._save_requests, reactions, lost_link, self._postmortem, self._internal_errors)
        )
        self._rescue = rescue = Rescue(world.clock, self._save_requests, self._judge)
        self._pause = Pause(
            self._timers,
            world.clock,
            lambda: rescue.obstacle(crew.look_around()),
            helm.feed,
            self._judge.give_up,
        )
        # Who performs the actions of the table.
        self._next = NextAttempt(instruments, crew, book, self._postmortem, self._pause)
        self._patrol = Patrol(instruments, helm, self._watchman)
        hung_group = HungGroup(self._timers, world.clock, self._watchman, helm.feed)
        removal = Removal(instruments, helm, crew, self._postmortem, stop)
        self._last_save = LastSave(instruments, helm, crew, rescue, stop)
        self._conclusion = Conclusion(instruments, crew, book, durable_steps, stop)
        self._actions = self._assign(removal, hung_group)
        self.status = 0

    def _assign(
        self, removal: Removal, hung_group: HungGroup
    ) -> Mapping[SupervisorAction, Callable[[], None]]:
        """Each action of the table, and who performs it."""
        return {
            SupervisorAction.LAUNCH: self._launch,
            SupervisorAction.WAIT: self._next.wait,
            SupervisorAction.WAIT_LONGER: self._next.wait_longer,
            SupervisorAction.TAKE_STACKS: lambda: hung_group.begin(self._launcher.present),
            SupervisorAction.GO_ON: self._patrol.go_on,
            SupervisorAction.END: removal.ask,
            SupervisorAction.FORWARD: removal.forward,
            SupervisorAction.SECURE: removal.secure,
            SupervisorAction.KILL: removal.kill,
            SupervisorAction.LOOK_AGAIN: removal.look_again,
            SupervisorAction.ABANDON: removal.abandon,
            SupervisorAction.AWAIT_SAVE: self._last_save.wait,
            SupervisorAction.FINISH: self._finish,
        }

    def run(self) -> int:
        """Supervises to the end; the exit status."""
        with self._selector, wakeup.signals(self._selector, self.hear_signals):
            self._journal.writer.watch(self._selector)
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
        with self._internal_errors.contained("the record of earlier trials"):
            if concluded := self._judge.open(self._book.attempts):
                self._story.trouble(concluded)
        self._helm.feed(SupervisorEvent.BEGIN)

    @property
    def ended(self) -> bool:
        """Whether the run is over; ``status`` is the exit status then."""
        return self._helm.state is SupervisorState.ENDED

    def break_down(self, error: BaseException) -> None:
        """We cannot go on: has the memory saved without the loop, and ends the run."""
        self.status = EXIT_BROKEN
        self._emergency_save.bid(error, self._launcher.group, self._save_requests, self._judge.durable_step)
        with self._internal_errors.contained("the record of the run"):
            self._book.end(rundir.FAILED)

    def close(self) -> None:
        """Whatever went wrong with us, nothing of the run is left behind."""
        parts = (
            self._save_requests.close,
            self._standby.close,
            self._launcher.clear_away,
            self._watchman.close,
        )
        for act in parts:
            with self._internal_errors.contained("the clearing away"):
                act()
        self._instruments.report_left(self._launcher.left)

    def _launch(self) -> None:
        if attempt := self._next.launch():
            self._patrol.begin(attempt)

    def _on_settled(self) -> None:
        self._last_save.on_settled()

    def _finish(self) -> None:
        self.status = self._conclusion.draw()

    # Waiting

    def step(self, wait_s: float | None) -> None:
        """Waits so long for an event, for ever with None, and deals with what there is."""
        for key, _ in self._selector.select(wait_s):
            # One handler may have closed what the next one is about, and its number may be another's by now.
            if self._selector.get_map().get(key.fd) is key:
                with self._internal_errors.contained(f"what descriptor {key.fd} told", MOST_IN_A_ROW):
                    key.data()
        self._timers.fire(self._internal_errors.timer)

    def hear_signals(self, numbers: Collection[int]) -> None:
        """Deals with signals that came, by their numbers."""
        for number in numbers:
            with self._internal_errors.contained(f"the signal {number}"):
                self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._launcher.reap_orphans(self._save_requests.pids)
        elif number in wakeup.STOP_SIGNALS:
            self._on_stop(number)
        elif number in wakeup.REQUESTS:
            running = self._launcher.attempt if self._helm.state is SupervisorState.RUNNING else None
            on_request.pass_on(number, running, self._journal, self._story)

    def _on_stop(self, number: int) -> None:
        event = self._stop.hear(number)
        if event is not None:
            self._journal.write(StopRequested(signal.Signals(number).name))
            self._helm.feed(event)
