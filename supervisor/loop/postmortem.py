"""An attempt that is over: its evidence is collected and judged, and its state in memory saved.

A run must not end because a judgment fails. Evidence that cannot be collected is left out, and so are words
of the worker that make the judgment fail. Only where the bare end cannot be judged either, the supervisor is
broken.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.loop.internal_errors import Broken, Mishaps
from supervisor.loop.lost_link import Muteness
from supervisor.saves.save_requests import Commits
from supervisor.verdict.classify import FINISHED, Evidence, death_reason
from supervisor.verdict.judge import Judge
from supervisor.verdict.restart import Verdict
from supervisor.watching.watchman import Watchman
from supervisor.workers.attempt import Attempt


class Inquest:
    """Judges attempts by what the watchman has seen, and has their memory saved.

    ``stop_signal`` is the one that has asked for the end of the run; 0 for none.
    """

    def __init__(
        self, judge: Judge, commits: Commits, watchman: Watchman, muteness: Muteness, mishaps: Mishaps
    ) -> None:
        self._muteness = muteness
        self._judge = judge
        self._commits = commits
        self._watchman = watchman
        self._mishaps = mishaps
        self.stop_signal = 0

    def hold(self, attempt: Attempt, code: int | None = None) -> Verdict:
        """Judges a group that is over; ``code`` is how it ended, where it cannot be reaped. Raises Broken."""
        with self._mishaps.contained("what no message has told"):
            self._muteness.on_over(attempt)
        try:
            evidence = self._watchman.evidence(attempt, code)
        except Exception as error:  # noqa: BLE001 - how it ended is enough for a judgment
            self._mishaps.note("the evidence of an attempt", error)
            evidence = _bare(attempt, code)
        return self.judge(evidence)

    def judge(self, evidence: Evidence) -> Verdict:
        """Judges by this evidence. Raises Broken when that cannot be done at all."""
        try:
            self._judge_by(evidence)
            incident = self._judge.incident
            over = incident.kind == FINISHED
            reason = "end" if over else death_reason(incident)
            standing = self._judge.standing(self._commits.kept_step)
            self._commits.save_newer(standing, reason, failure=not over)
            self._judge.journal(standing)
        except Exception as error:
            raise Broken("an attempt that is over cannot be judged") from error
        return self._judge.verdict

    def _judge_by(self, evidence: Evidence) -> None:
        stopping = bool(self.stop_signal)
        try:
            self._judge.judge(evidence, stopping=stopping)
        except Exception as error:  # noqa: BLE001 - its end alone is judged
            self._mishaps.note("the judgment of an attempt", error)
            self._judge.judge(replace(evidence, told={}, log_end="", kernel=""), stopping=stopping)


def _bare(attempt: Attempt, code: int | None) -> Evidence:
    """The evidence of a group that is over, without looking anywhere."""
    return Evidence(
        returncode=attempt.code if code is None else code,
        told=attempt.told,
        sent=attempt.sent,
        progressed=attempt.progressed,
        step=attempt.step,
    )
