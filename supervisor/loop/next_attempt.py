"""The next attempt: launched with the memory it resumes from, once the pause before it is over."""

from __future__ import annotations

from resilient.journal.events import AttemptStarted, LaunchFailed
from supervisor.group.attempt import Attempt
from supervisor.loop.crew import Crew
from supervisor.loop.instruments import Instruments
from supervisor.loop.internal_errors import words_of
from supervisor.loop.pause import Pause
from supervisor.loop.postmortem import Postmortem
from supervisor.loop.run_book import RunBook


class NextAttempt:
    """Makes one attempt after the other."""

    def __init__(
        self, instruments: Instruments, crew: Crew, book: RunBook, postmortem: Postmortem, pause: Pause
    ) -> None:
        self._journal = instruments.journal
        self._story = instruments.story
        self._instruments = instruments
        self._crew = crew
        self._book = book
        self._postmortem = postmortem
        self._pause = pause

    def launch(self) -> Attempt | None:
        """Launches a group; None where that has failed, which was judged then as an attempt that is over."""
        number = self._book.begin_attempt()
        crew = self._crew
        crew.judge.begin(number)
        config = self._book.config(crew.judge.origin, crew.judge.durable_step)
        try:
            attempt = crew.launcher.launch(config, crew.save_requests.offer(crew.standing))
        except Exception as error:  # noqa: BLE001 - an attempt less, whatever kept it from starting
            why = str(error) if isinstance(error, OSError) else words_of(error)
            self._journal.write(LaunchFailed(why, attempt=number))
            self._postmortem.on_spawn_failed(why)
            return None
        self._journal.write(AttemptStarted(attempt.workers[0].pid, attempt=number))
        self._story.attempt(attempt)
        return attempt

    def wait(self) -> None:
        """An attempt was granted: pauses before it is launched."""
        judge, attempt = self._crew.judge, self._crew.launcher.attempt
        assert judge.verdict.delay_s is not None
        self._pause.begin(judge.verdict.delay_s)
        self._story.restarting(judge.incident, judge.verdict, attempt, self._crew.standing)

    def wait_longer(self) -> None:
        """Something stands in its way still."""
        self._instruments.report_wait("the restart", self._pause.reason)
        self._pause.go_on()
