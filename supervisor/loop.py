"""The loop: waits for the next event, and does what the machine's table says.

It sleeps until one of these: a worker's pidfd (it has ended), its link (it says something), a signal
(through the wake-up descriptor), or the one timer there is. Nothing is polled. Judgments are made
elsewhere: why an attempt ended (``classify``), whether another follows (``restart``), what is said about it
(``story``).
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from resilient.config import WorkerConfig
from resilient.errors import EXIT_STOPPED, LinkError, StorageError
from resilient.heartbeat import Heartbeat
from resilient.host.world import World
from resilient.store import rundir
from resilient.store.rundir import RunDirectory
from supervisor.attempt import Attempt
from supervisor.classify import FINISHED, Evidence, Incident, classify, death_reason
from supervisor.commits import Commits
from supervisor.journal import Journal
from supervisor.machine import Action, Event, Machine, State
from supervisor.restart import History, RestartPolicy, Verdict, decide
from supervisor.standby import Standby
from supervisor.story import Story
from supervisor.workers import Worker, Workers, tell

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
_MESSAGES_AT_ONCE = 200


@dataclass(frozen=True)
class Plan:
    """What the supervisor goes by: the worker's configuration, when to restart, how long to wait."""

    worker: WorkerConfig
    restart: RestartPolicy
    grace_s: float
    standby: bool = False


@dataclass
class _Timer:
    """The one thing that is to happen when nothing else does."""

    at_s: float
    event: Event


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
        self._workers = workers
        self._story = story
        self._journal = journal
        self._clock = world.clock
        self._entropy = world.entropy
        self._machine = Machine()
        self._history = History()
        self._record = directory.open()
        self._selector = selectors.DefaultSelector()
        self._attempt: Attempt | None = None
        self._timer: _Timer | None = None
        self._incident = Incident(FINISHED, "", 0)
        self._verdict = Verdict(None, "", self._history)
        self._stop_signal = 0
        self._commits = Commits(
            plan.worker, lambda config: workers.spawn_saver(config, directory.saver_log), self._selector, self
        )
        self._standby = Standby(workers.spawn_standby, self._selector, self._hear_standby, story.trouble)
        self._actions: Mapping[Action, Callable[[], None]] = {
            Action.LAUNCH: self._launch,
            Action.WAIT: self._wait,
            Action.CANCEL_WAIT: self._cancel_timer,
            Action.FORWARD: self._forward,
            Action.KILL: self._kill,
            Action.AWAIT_SAVE: self._await_save,
            Action.FINISH: self._finish,
        }
        self.status = 0

    def run(self) -> int:
        """Supervises to the end; the exit status."""
        with self._signals():
            try:
                self._feed(Event.BEGIN)
                while self._machine.state is not State.ENDED:
                    self._step()
            finally:
                # Whatever went wrong with us, nothing of the run is left behind.
                self._commits.close()
                self._workers.sweep()
                self._standby.close()
        return self.status

    # Waiting

    def _step(self) -> None:
        timeout_s = None if self._timer is None else max(0.0, self._timer.at_s - self._clock.monotonic())
        for key, _ in self._selector.select(timeout_s):
            # One handler may have closed what the next one is about.
            if key.fd in self._selector.get_map():
                key.data()
        if self._timer is not None and self._clock.monotonic() >= self._timer.at_s:
            event = self._timer.event
            self._timer = None
            self._feed(event)

    def _feed(self, event: Event) -> None:
        before = self._machine.state
        actions = self._machine.feed(event)
        if before is not self._machine.state:
            self._journal.write("transition", of=before.value, on=event.value, to=self._machine.state.value)
        for action in actions:
            self._actions[action]()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_signals(ours.recv(4096)))
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        previous = {n: signal.signal(n, _note) for n in (*STOP_SIGNALS, signal.SIGCHLD)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            self._selector.close()
            ours.close()
            theirs.close()

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers and self._attempt is not None:
            ours = [worker.pid for worker in self._attempt.workers]
            self._workers.reap_orphans([*ours, *self._commits.pids, *self._standby.pids])
        for number in numbers:
            if number in STOP_SIGNALS:
                self._on_stop(number)

    def _on_stop(self, number: int) -> None:
        # A scheduler may repeat its signal, or send it to all of a job; a second Ctrl-C is a person's will.
        insists = bool(self._stop_signal) and number == signal.SIGINT
        if self._stop_signal and not insists:
            return
        self._journal.write("stop_requested", signal=signal.Signals(number).name)
        self._stop_signal = self._stop_signal or number
        self._feed(Event.INSIST if insists else Event.STOP)

    # Attempts

    def _launch(self) -> None:
        number = self._record.attempts + 1
        self._update(attempts=number, status=rundir.RUNNING)
        config = replace(self._plan.worker, attempt=number)
        heartbeat: Heartbeat | None = None
        try:
            heartbeat = Heartbeat.create()
            shared = [heartbeat.descriptor, *self._commits.offer(self._history.durable_step)]
            worker = self._worker(config, shared)
        except OSError as error:
            if heartbeat is not None:
                heartbeat.close()
            self._journal.write("spawn_failed", attempt=number, error=str(error))
            self._judge(Evidence(None, error=str(error)))
            return
        if self._attempt is not None:
            self._attempt.close()
        self._attempt = Attempt(number, [worker], self._clock.monotonic(), heartbeat)
        self._journal.write("attempt", attempt=number, pid=worker.pid)
        self._story.attempt(self._attempt)
        self._selector.register(worker.end_fd, selectors.EVENT_READ, self._on_end)
        self._selector.register(worker.link, selectors.EVENT_READ, lambda: self._on_link(worker))

    def _worker(self, config: WorkerConfig, shared: list[int]) -> Worker:
        """A worker that has been told what to do: the standby, or a new one. Raises OSError."""
        standby = self._standby.take()
        if standby is None:
            log = self._directory.log(config.attempt, config.rank)
            return self._workers.spawn(config, log, shared)
        tell(standby, config, shared)
        return standby

    def _prepare_standby(self) -> None:
        """The first step is complete: the start is over."""
        if self._plan.standby and self._machine.state is State.RUNNING:
            config = self._plan.worker
            log = self._directory.log(self._record.attempts + 1, config.rank)
            self._standby.prepare(config, log)

    def _on_link(self, worker: Worker) -> None:
        try:
            # Not more at once: the other events get their turn however much a worker says.
            for _ in range(_MESSAGES_AT_ONCE):
                received = worker.link.poll()
                if received is None:
                    return
                self._hear(worker, *received)
        except LinkError:
            self._selector.unregister(worker.link)

    def _hear(self, worker: Worker, message: dict[str, Any], descriptors: list[int]) -> None:
        if not self._commits.hear(worker, message, descriptors):
            self.heard(worker, message)

    def heard(self, worker: Worker | None, message: Mapping[str, Any]) -> None:
        """Takes note of what a worker has said, or (None) of what is said of one that lives no more."""
        fields = {name: value for name, value in message.items() if name != "type"}
        attempt = self._attempt
        if attempt is not None and worker in attempt.workers:
            attempt.hear(message)
            fields = {"attempt": attempt.number, **fields}
        if message["type"] == "progress":
            self._prepare_standby()
        self._journal.write(message["type"], **fields)
        if message["type"] == "place" and message["directory"] not in self._record.checkpoints:
            self._update(checkpoints=(*self._record.checkpoints, message["directory"]))
        self._note_durable(message)
        self._story.message(message)

    def _hear_standby(self, message: Mapping[str, Any]) -> None:
        self._journal.write("standby", **{k: v for k, v in message.items() if k != "type"})
        self._story.standby(message)

    def settled(self) -> None:
        """Nothing is being saved any more."""
        if self._machine.state is State.SAVING:
            self._feed(Event.SETTLED)

    def _note_durable(self, message: Mapping[str, Any]) -> None:
        step = message.get("step")
        if message["type"] == "resumed" and isinstance(step, int) and self._history.durable_step == 0:
            self._history = replace(self._history, durable_step=step, judged_step=step)
        if message["type"] == "saved" and isinstance(step, int):
            durable_step = max(step, self._history.durable_step)
            self._history = replace(self._history, durable_step=durable_step)

    def _on_end(self) -> None:
        attempt = self._attempt
        assert attempt is not None
        if not attempt.reap():
            return
        left = self._workers.sweep([*self._commits.pids, *self._standby.pids])
        if left:
            self._story.left_behind(left)
        for worker in attempt.workers:
            self._selector.unregister(worker.end_fd)
            self._drain(worker)
            worker.finish()
        self._judge(attempt.evidence())

    def _drain(self, worker: Worker) -> None:
        """Hears what the worker said before it ended."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.link)
        with contextlib.suppress(LinkError):
            while (received := worker.link.poll()) is not None:
                self._hear(worker, *received)

    def _judge(self, evidence: Evidence) -> None:
        self._incident = classify(evidence)
        why = "end" if self._incident.kind == FINISHED else death_reason(self._incident)
        self._commits.save_newer(self._history.durable_step, why, failure=self._incident.kind != FINISHED)
        jitter = int.from_bytes(self._entropy.token(4), "little") / 2**32
        self._verdict = decide(
            self._history, self._incident, self._plan.restart, self._clock.monotonic(), jitter
        )
        self._history = self._verdict.history
        self._journal.write(
            "incident_judged",
            kind=self._incident.kind,
            cause=self._incident.cause,
            status=self._incident.status,
            restart_in_s=self._verdict.delay_s,
            reason=self._verdict.reason,
        )
        self._feed(Event.GROUP_OVER if self._verdict.delay_s is None else Event.GROUP_FAILED)

    # What the table asks for

    def _await_save(self) -> None:
        self._timer = None
        if not self._commits.busy:
            self._feed(Event.SETTLED)
            return
        limit_s = self._plan.grace_s if self._stop_signal else self._commits.patience_s
        self._timer = _Timer(self._clock.monotonic() + limit_s, Event.GRACE_OVER)

    def _wait(self) -> None:
        assert self._verdict.delay_s is not None
        self._timer = _Timer(self._clock.monotonic() + self._verdict.delay_s, Event.BACKOFF_OVER)
        self._story.restarting(self._incident, self._verdict, self._attempt, self._commits.kept_step)

    def _cancel_timer(self) -> None:
        self._timer = None

    def _forward(self) -> None:
        assert self._attempt is not None
        self._story.stopping(self._stop_signal, self._plan.grace_s)
        self._timer = _Timer(self._clock.monotonic() + self._plan.grace_s, Event.GRACE_OVER)
        self._attempt.send(self._stop_signal)

    def _kill(self) -> None:
        assert self._attempt is not None
        self._timer = None
        self._story.killing()
        self._attempt.send(signal.SIGKILL)

    def _finish(self) -> None:
        self._timer = None
        durable_step = self._history.durable_step
        if self._incident.kind == FINISHED and self._attempt is not None:
            self._finish_whole(self._attempt, durable_step)
        elif self._stop_signal:
            self.status = EXIT_STOPPED
            self._update(status=rundir.STOPPED)
            self._story.stopped(self._stop_signal, durable_step)
        else:
            self.status = self._incident.status
            self._update(status=rundir.FAILED)
            self._story.gave_up(self._incident, self._verdict, self._attempt, durable_step)
        self._journal.write("ended", status=self.status)

    def _finish_whole(self, attempt: Attempt, durable_step: int) -> None:
        """The script is through. Complete is a run whose last state is on disk as well."""
        if attempt.failed_step > durable_step:
            self.status = EXIT_STOPPED
            self._update(status=rundir.STOPPED)
            self._story.unsaved(attempt.failed_step, durable_step)
        else:
            self.status = 0
            self._update(status=rundir.COMPLETE)
            self._story.complete(attempt, durable_step)

    def _update(self, **changes: Any) -> None:
        """Changes the run's record; a disk that is full now must not end the run."""
        self._record = replace(self._record, **changes)
        try:
            self._directory.write(self._record)
        except StorageError as error:
            self._story.trouble(f"run.json cannot be written: {error}")


def _note(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the wake-up descriptor carries the signal."""
