"""Whether, and when, a run that failed is started again: a pure decision.

* never after a clean finish, a refusal (wrong key, another network) or a request to stop;
* the same failure twice before the first step, and not on a state that was resumed from, ends the run:
  starting again would only repeat it. So does what the ledger calls hopeless;
* otherwise as long as the budget lasts: so many restarts in a sliding window of monotonic time. What others
  do (a kill from outside, a preemption) has a budget of its own. A durable checkpoint further than any
  before refills both: a run that gets on may fail as often as it likes. An attempt that has completed no step
  refills nothing: what became durable meanwhile was the work of the one before.

The wait before a restart doubles from one failure without progress to the next, up to a maximum. Jitter keeps
many runs that died of one cause from coming back in step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor.verdict import ledger as trials
from supervisor.verdict.classify import FINAL, FINISHED, NOTHING_OLDER, OUTSIDE, Incident
from supervisor.verdict.ledger import Poison, TrialLedger

_JITTER = 0.25
_MOST_DOUBLINGS = 1000
"""More than any maximum allows. Some thirty more, and the power of two is no float."""


@dataclass(frozen=True)
class RestartPolicy:
    """How often, how soon, and from where.

    ``max_restarts`` within ``window_s``; waits from ``min_s`` up to ``max_s``; ``poison`` is for a step that
    fails again and again.
    """

    max_restarts: int = 10
    window_s: float = 3600.0
    min_s: float = 1.0
    max_s: float = 60.0
    poison: Poison = Poison.ROLLBACK


@dataclass(frozen=True)
class History:
    """The past: when restarts were granted, how the last attempt failed, how far the run has come.

    ``restarts`` and ``preempted`` are readings of the monotonic clock; ``barren`` counts the restarts since
    there was durable progress; ``durable_step`` is the newest step that is safe on disk, and
    ``judged_step`` what that was at the last decision.
    """

    restarts: tuple[float, ...] = ()
    preempted: tuple[float, ...] = ()
    barren: int = 0
    last: Incident | None = None
    durable_step: int = 0
    judged_step: int = 0
    ledger: TrialLedger = TrialLedger()


@dataclass(frozen=True)
class Verdict:
    """Start again after ``delay_s``, or not at all (None), and why; ``action`` is what will be different."""

    delay_s: float | None
    reason: str
    history: History
    action: str = ""


def decide(
    history: History,
    incident: Incident,
    policy: RestartPolicy,
    now_s: float,
    jitter: float,
    *,
    attempt: int = 0,
    stopping: bool = False,
) -> Verdict:
    """Decides what follows an incident of this attempt. ``jitter`` is a random number in [0, 1)."""
    if incident.kind == NOTHING_OLDER and not stopping:
        again = trials.nothing_older(history.ledger)
        if not again.stop:
            return _grant(
                replace(history, ledger=again.ledger), incident, policy, now_s, jitter, again.action
            )
    if stopping or incident.kind == FINISHED or incident.kind in FINAL:
        return Verdict(None, "", history)
    on_trial = history.ledger.open
    finding = trials.failed(history.ledger, incident, attempt, policy.poison)
    last, history = history.last, replace(history, ledger=finding.ledger, last=incident)
    if finding.stop:
        return Verdict(None, finding.stop, history)
    if not on_trial and _repeats(last, incident):
        return Verdict(None, "it failed the same way twice before completing a step", history)
    if history.durable_step > history.judged_step and not incident.at_start:
        history = replace(history, restarts=(), preempted=(), barren=0, judged_step=history.durable_step)
    return _grant(history, incident, policy, now_s, jitter, finding.action)


def _grant(
    history: History, incident: Incident, policy: RestartPolicy, now_s: float, jitter: float, action: str
) -> Verdict:
    outside = incident.kind in OUTSIDE
    spent = history.preempted if outside else history.restarts
    recent = tuple(at_s for at_s in spent if now_s - at_s < policy.window_s)
    if len(recent) >= policy.max_restarts:
        return Verdict(None, _exhausted(policy), history)
    delay_s = _backoff_s(policy, history.barren, jitter)
    changed = replace(history, barren=history.barren + 1)
    if outside:
        changed = replace(changed, preempted=(*recent, now_s))
    else:
        changed = replace(changed, restarts=(*recent, now_s))
    return Verdict(delay_s, f"restart {len(recent) + 1} of {policy.max_restarts}", changed, action)


def _repeats(last: Incident | None, incident: Incident) -> bool:
    if last is None or incident.kind in OUTSIDE:
        return False
    return last.at_start and incident.at_start and incident.fingerprint == last.fingerprint


def _exhausted(policy: RestartPolicy) -> str:
    if policy.max_restarts == 0:
        return "restarts are switched off (--max-restarts 0)"
    window = f"{policy.window_s:g} s"
    return f"{policy.max_restarts} restarts within {window} brought no new checkpoint (--max-restarts)"


def _backoff_s(policy: RestartPolicy, barren: int, jitter: float) -> float:
    doubled_s = policy.min_s * 2.0 ** min(barren, _MOST_DOUBLINGS)
    spread = 1.0 + _JITTER * (2.0 * jitter - 1.0)
    return min(policy.max_s, min(policy.max_s, doubled_s) * spread)
