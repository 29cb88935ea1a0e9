"""How a run ends: its exit status, what its record says from then on, and the last words."""

from __future__ import annotations

from dataclasses import dataclass

from resilient.errors import EXIT_STOPPED
from resilient.journal.events import SupervisorEnded
from resilient.run import rundir
from supervisor.checkpointing.durable_steps import DurableSteps
from supervisor.loop.crew import Crew
from supervisor.loop.instruments import Instruments
from supervisor.loop.run_book import RunBook
from supervisor.loop.stop_request import StopRequest
from supervisor.verdict.classify import FINISHED


@dataclass(frozen=True)
class Ending:
    """The exit status of the supervisor, and the run's status in run.json."""

    status: int
    record: str


class Conclusion:
    """Ends a run, and reports it: in its record, in the journal, and to the person."""

    def __init__(
        self,
        instruments: Instruments,
        crew: Crew,
        book: RunBook,
        durable_steps: DurableSteps,
        stop: StopRequest,
    ) -> None:
        self._instruments = instruments
        self._crew = crew
        self._book = book
        self._durable_steps = durable_steps
        self._stop = stop

    def draw(self) -> int:
        """Nothing of the run goes on: the exit status."""
        self._instruments.timers.cancel_all()
        lost = self._crew.save_requests.unsaved(self._crew.standing)
        ending = self._tell(lost, self._durable_steps.newest_step())
        self._book.end(ending.record)
        self._instruments.journal.write(SupervisorEnded(ending.status, lost=lost))
        return ending.status

    def _tell(self, lost: str, on_disk: int | None) -> Ending:
        """The end of the run, told to the person.

        ``lost`` says what is not on disk, though it was complete: it goes with the supervisor's memory.
        ``on_disk`` is the step that was found there. It is None where nobody could look: then what was heard
        counts.
        """
        judge, attempt, story = self._crew.judge, self._crew.launcher.attempt, self._instruments.story
        incident, durable_step = judge.incident, judge.durable_step if on_disk is None else on_disk
        if incident.kind == FINISHED and attempt is not None:
            # Complete is a run whose last state is on disk as well.
            if lost or attempt.failed_step > max(durable_step, judge.durable_step):
                story.unsaved(max(attempt.failed_step, attempt.step), durable_step, lost)
                return Ending(EXIT_STOPPED, rundir.STOPPED)
            story.complete(attempt, durable_step)
            return Ending(0, rundir.COMPLETE)
        # A run that was given up stays so, even if a stop comes while it is saved: requeueing it is no use.
        if self._stop.is_made and not judge.has_given_up:
            story.stopped(self._stop.number, durable_step, lost)
            return Ending(EXIT_STOPPED, rundir.STOPPED)
        story.gave_up(incident, judge.verdict, attempt, durable_step, lost)
        return Ending(incident.status, rundir.FAILED)
