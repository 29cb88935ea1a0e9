"""How a run ends: its exit status, what its record says from then on, and the last words."""

from __future__ import annotations

from dataclasses import dataclass

from resilient.errors import EXIT_STOPPED
from resilient.run import rundir
from supervisor.telling.story import Story
from supervisor.verdict.classify import FINISHED
from supervisor.verdict.judge import Judge
from supervisor.workers.attempt import Attempt


@dataclass(frozen=True)
class Ending:
    """The exit status of the supervisor, and the run's status in run.json."""

    status: int
    record: str


def conclude(
    judge: Judge,
    attempt: Attempt | None,
    stop_signal: int,
    story: Story,
    lost: str = "",
    on_disk: int | None = None,
) -> Ending:
    """The end of a run, told to the person; ``stop_signal`` is 0 where nobody asked for it.

    ``lost`` says what is not on disk, though it was complete: it goes with the supervisor's memory.
    ``on_disk`` is the step that was found there; None where nobody could look: then what was heard counts.
    """
    incident, durable_step = judge.incident, judge.durable_step if on_disk is None else on_disk
    if incident.kind == FINISHED and attempt is not None:
        # Complete is a run whose last state is on disk as well.
        if lost or attempt.failed_step > max(durable_step, judge.durable_step):
            story.unsaved(max(attempt.failed_step, attempt.step), durable_step, lost)
            return Ending(EXIT_STOPPED, rundir.STOPPED)
        story.complete(attempt, durable_step)
        return Ending(0, rundir.COMPLETE)
    # A run that was given up stays so, even if a stop comes while it is saved: requeueing it is no use.
    if stop_signal and not judge.has_given_up:
        story.stopped(stop_signal, durable_step, lost)
        return Ending(EXIT_STOPPED, rundir.STOPPED)
    story.gave_up(incident, judge.verdict, attempt, durable_step, lost)
    return Ending(incident.status, rundir.FAILED)
