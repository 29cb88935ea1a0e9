"""An attempt that is over: its evidence is collected and judged, and its state in memory saved.

A run must not end because a judgment fails. Evidence that cannot be collected is left out, and so are words
of the worker that make the judgment fail. Only where the bare end cannot be judged either, the supervisor is
broken.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.group.attempt import Attempt
from supervisor.group.last_words import LastWords
from supervisor.loop.crew import Crew
from supervisor.loop.helm import Helm
from supervisor.loop.instruments import Instruments
from supervisor.loop.internal_errors import BrokenError
from supervisor.loop.lost_link import LostLink
from supervisor.loop.machine import SupervisorEvent
from supervisor.loop.stop_request import StopRequest
from supervisor.verdict.classify import FINISHED, Evidence, death_reason


class Postmortem:
    """Judges attempts by what the watchman has seen, and has their memory saved.

    Feeds GROUP_FAILED or GROUP_OVER.
    """

    def __init__(
        self, instruments: Instruments, helm: Helm, crew: Crew, lost_link: LostLink, stop: StopRequest
    ) -> None:
        self._instruments = instruments
        self._internal_errors = instruments.internal_errors
        self._helm = helm
        self._crew = crew
        self._lost_link = lost_link
        self._stop = stop

    def on_over(self) -> None:
        """The group has ended: clears away what it has left, judges it, and reports which way it goes on."""
        self._instruments.timers.cancel("watch")
        launcher = self._crew.launcher
        with self._internal_errors.contained("the clearing away"):
            launcher.clear_away(self._crew.save_requests.pids)
        self._instruments.report_left(launcher.left)
        with self._internal_errors.contained("the last words of an attempt"):
            launcher.finish()
        self.hold(launcher.present)
        self._conclude()

    def on_spawn_failed(self, error: str) -> None:
        """A group could not be launched: that is judged as well."""
        self._judge(Evidence(None, error=error))
        self._conclude()

    def _conclude(self) -> None:
        granted = self._crew.judge.verdict.delay_s is not None
        self._helm.feed(SupervisorEvent.GROUP_FAILED if granted else SupervisorEvent.GROUP_OVER)

    def hold(self, attempt: Attempt, code: int | None = None) -> None:
        """Judges a group that is over; ``code`` is how it ended, where it cannot be reaped. Raises Broken."""
        with self._internal_errors.contained("what no message has told"):
            self._lost_link.on_over(attempt)
        try:
            evidence = self._crew.watchman.evidence(attempt, code)
        except Exception as error:  # noqa: BLE001 - how it ended is enough for a judgment
            self._internal_errors.note("the evidence of an attempt", error)
            evidence = _bare(attempt, code)
        self._judge(evidence)

    def _judge(self, evidence: Evidence) -> None:
        """Judges by this evidence. Raises Broken when that cannot be done at all."""
        try:
            self._judge_by(evidence)
            incident = self._crew.judge.incident
            over = incident.kind == FINISHED
            reason = "end" if over else death_reason(incident)
            standing = self._crew.standing
            self._crew.save_requests.save_newer(standing, reason, failure=not over)
            self._crew.judge.journal(standing)
        except Exception as error:
            raise BrokenError("an attempt that is over cannot be judged") from error

    def _judge_by(self, evidence: Evidence) -> None:
        judge, stopping = self._crew.judge, self._stop.is_made
        try:
            judge.judge(evidence, stopping=stopping)
        except Exception as error:  # noqa: BLE001 - its end alone is judged
            self._internal_errors.note("the judgment of an attempt", error)
            judge.judge(replace(evidence, told=LastWords(), log_end="", kernel=""), stopping=stopping)


def _bare(attempt: Attempt, code: int | None) -> Evidence:
    """The evidence of a group that is over, without looking anywhere."""
    return Evidence(
        returncode=attempt.code if code is None else code,
        told=attempt.told,
        sent=attempt.sent,
        progressed=attempt.progressed,
        step=attempt.step,
    )
