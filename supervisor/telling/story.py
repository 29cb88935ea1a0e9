"""The run in plain words: what happened, why, what is saved, and what comes next. One line an event.

Scheduled saves, and saves that fail one after the other, are told at most once a minute; the journal has each
of them.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from resilient.host.clock import Clock
from resilient.wire.messages import (
    CheckpointSaved,
    Remarked,
    Resumed,
    SaveFailed,
    StandbyReady,
    Warned,
    WorkerNews,
)
from supervisor.group.attempt import Attempt
from supervisor.telling.console import Console
from supervisor.verdict.classify import FINAL, NOTHING_OLDER, NUMERICAL, Incident
from supervisor.verdict.restart import Verdict
from supervisor.verdict.standing import Standing

_APART_S = 60.0
_TRACEBACK_LINES = 4


class Story:
    """Tells a person about one run. ``directory`` is the run's, as the person knows it."""

    def __init__(self, console: Console, clock: Clock, directory: Path) -> None:
        self._console = console
        self._clock = clock
        self._directory = directory
        self._began_s = clock.monotonic()
        self._save_told_s: float | None = None
        self._failure_told_s: float | None = None
        self._failed_saves = 0
        self._held_up = ""

    def attempt(self, attempt: Attempt) -> None:
        """An attempt has been launched."""
        self._held_up = ""
        self._console.say(f"attempt {attempt.number} started (process {attempt.workers[0].pid})")

    def message(self, message: WorkerNews) -> None:
        """A worker has said something, or something is said of its saves."""
        match message:
            case Resumed():
                self._console.say(message.message)
            case Remarked(text):
                self._console.say(text)
            case Warned(text):
                self._console.warn(f"warning: {text}")
            case CheckpointSaved():
                self._saved(message)
            case SaveFailed():
                self._save_failed(message)

    def _save_failed(self, message: SaveFailed) -> None:
        self._failed_saves += 1
        now_s = self._clock.monotonic()
        if self._failure_told_s is not None and now_s - self._failure_told_s < _APART_S:
            return
        self._failure_told_s = now_s
        goes_on = "earlier checkpoints are intact, and it stays in memory"
        if not message.left_behind:
            goes_on = "the training goes on, earlier checkpoints are intact, the next save tries again"
        self._console.warn(f"saving step {message.step} FAILED: {message.error}; {goes_on}")

    def _saved(self, message: CheckpointSaved) -> None:
        now_s = self._clock.monotonic()
        recent = self._save_told_s is not None and now_s - self._save_told_s < _APART_S
        if self._failed_saves:
            times = "once" if self._failed_saves == 1 else f"{self._failed_saves} times"
            self._console.say(f"saving works again, after it failed {times}")
            self._failed_saves, self._failure_told_s, recent = 0, None, False
        if message.reason == "schedule" and recent:
            return
        self._save_told_s = now_s
        why = {"schedule": "", "end": " (end of training)"}.get(message.reason, f" ({message.reason})")
        where = f"step {message.step} of epoch {message.epoch}"
        self._console.say(f"saved {where}{why} as {message.file}")

    def standby(self, message: StandbyReady) -> None:
        """A standby is ready."""
        size = f"{message.memory_bytes / 1e6:.0f} MB"
        self._console.say(f"a standby waits, to take over at once ({size} of memory)")

    def restarting(
        self, incident: Incident, verdict: Verdict, attempt: Attempt | None, standing: Standing
    ) -> None:
        """An attempt has failed, and another one follows."""
        kept = f"step {standing.kept_step} is in memory, and being saved"
        self._console.warn(
            f"{_what(incident, attempt)}; {kept if standing.is_ahead else _safe(standing.durable_step)}; "
            f"{verdict.action + '; ' if verdict.action else ''}"
            f"starting again in {verdict.delay_s:.1f} s ({verdict.reason})"
        )

    def held_up(self, reason: str, what: str = "the restart") -> None:
        """A restart, or the end, has to wait; told once for each reason, whatever numbers are in it."""
        # How much room there is changes from look to look, and what is waited for does not.
        alike = re.sub(r"\d+", "#", f"{what} {reason}")
        if alike != self._held_up:
            self._held_up = alike
            self._console.warn(f"{what} waits: {reason}")

    def stopping(self, number: int, grace_s: float) -> None:
        """A stop has been requested and passed on."""
        name = signal.Signals(number).name
        again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
        self._console.say(
            f"{name} received: finishing the step and saving, up to {grace_s:g} s (--grace){again}"
        )

    def moves(self) -> None:
        """What had hung goes on."""
        self._console.say("the training moves again, and goes on")

    def mute(self) -> None:
        """A worker's script has closed the link to us."""
        self._console.warn(
            "warning: the script has closed a descriptor that was not its own, the training's link to the "
            "supervisor: the training goes on and saves by itself, and less of it is shown here"
        )

    def killing(self) -> None:
        """The workers are killed."""
        self._console.warn("the workers are killed now")

    def unkillable(self) -> None:
        """SIGKILL was sent, and has not come through; told once for each time that a restart is held up."""
        self.held_up(
            "the worker cannot be killed yet: it is frozen, asleep in the kernel, or runs as another user"
        )

    def left_behind(self, pids: list[int]) -> None:
        """Some processes did not die of SIGKILL."""
        self._console.warn(
            f"could not be killed, the kernel holds them: processes {', '.join(map(str, pids))}"
        )

    def trouble(self, text: str) -> None:
        """Something of ours cannot be done; the run goes on."""
        self._console.warn(f"warning: {text}")

    def breaking(self, error: str) -> None:
        """The supervisor itself cannot go on."""
        self._console.warn(f"resilient-run itself has failed ({error}): the training is saved and ended")

    def broken(self, durable_step: int, lost: str = "") -> None:
        """The supervisor has ended the run for a fault of its own; ``lost`` is what is not on disk."""
        but = f", but {lost}" if lost else ""
        on = f"resumes after step {durable_step}" if durable_step else "starts from the beginning"
        self._console.warn(
            f"ended by a fault of resilient-run, not of the training; {_safe(durable_step)}{but}; the same "
            f"command {on}; please report it, with the traceback from {self._directory}/journal.jsonl"
        )

    def complete(self, attempt: Attempt, durable_step: int) -> None:
        """The run is complete."""
        attempts = "1 attempt" if attempt.number == 1 else f"{attempt.number} attempts"
        seconds = self._clock.monotonic() - self._began_s
        steps = f", {durable_step} steps" if durable_step else ""
        self._console.end(
            f"run complete: {attempts}{steps}, {seconds:.0f} s; everything is in {self._directory}"
        )

    def unsaved(self, failed_step: int, durable_step: int, lost: str = "") -> None:
        """The script has come to its end, and its last state is not on disk; ``lost`` says why, if known."""
        again = (
            f"steps {durable_step + 1} to {failed_step} are run again" if durable_step else "it starts anew"
        )
        self._console.warn(
            f"the script has finished, but {lost or f'step {failed_step} could NOT be saved'}; "
            f"{_safe(durable_step)}; "
            f"remove the cause, then run the same command: {again}"
        )

    def stopped(self, number: int, durable_step: int, lost: str = "") -> None:
        """The run was stopped by request; ``lost`` is what is not on disk."""
        next_time = f"goes on after step {durable_step}" if durable_step else "starts from the beginning"
        name = signal.Signals(number).name
        tell = self._console.warn if lost else self._console.end
        but = f", but {lost}" if lost else ""
        tell(f"stopped by {name}; {_safe(durable_step)}{but}; the same command {next_time}")

    def gave_up(
        self, incident: Incident, verdict: Verdict, attempt: Attempt | None, durable_step: int, lost: str = ""
    ) -> None:
        """The run has ended without being complete: the cause, what is ``lost``, the next thing to try."""
        for line in _traceback_end(incident.traceback):
            self._console.warn(f"    {line}")
        if incident.kind in FINAL - {NOTHING_OLDER}:
            hint = f" ({incident.hint})" if incident.hint else ""
            self._console.warn(f"{incident.cause}{hint}")
            return
        log = f"; its output is in {self._directory}/logs/attempt_{attempt.number:04d}" if attempt else ""
        on = f"to go on after step {durable_step}" if durable_step else "to try again"
        if incident.kind == NUMERICAL:
            on = "to go on from the newest state whose loss was finite"
        cause = f"remove the cause ({incident.hint})" if incident.hint else "remove the cause"
        safe, reason = _safe(durable_step), verdict.reason
        if lost:
            reason = "it was waited for in vain" if reason == lost else reason
            safe = f"{safe}, but {lost}"
            cause = f"{cause}, and what kept the disk from being written"
        self._console.warn(
            f"giving up: {_what(incident, attempt)}; {reason}{log}; "
            f"{safe}; {cause}, then run the same command {on}; "
            f"`resilient explain {self._directory}` tells the whole story"
        )


def _traceback_end(traceback: str) -> list[str]:
    """The last frame, and the exception: what a person looks at first."""
    return traceback.rstrip().splitlines()[-_TRACEBACK_LINES:]


def _what(incident: Incident, attempt: Attempt | None) -> str:
    if incident.kind == NOTHING_OLDER:
        return incident.cause
    if attempt is None or incident.at_start:
        return f"the worker ended before completing a step: {incident.cause}"
    return f"the worker ended after step {attempt.step}: {incident.cause}"


def _safe(durable_step: int) -> str:
    return f"step {durable_step} is safe on disk" if durable_step else "nothing was saved yet"
