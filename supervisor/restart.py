"""Whether, and when, a run that failed is started again: a pure decision.

* never after a clean finish, a refusal (wrong key, another network) or a request to stop;
* the same failure twice before the first step ends the run: starting again would only repeat it;
* otherwise as long as the budget lasts: so many restarts in a sliding window of monotonic time. A durable
  checkpoint further than any before refills it: a run that gets on may fail as often as it likes.

The wait before a restart grows exponentially (tenacity's strategy) from one failure without progress to the
next, with jitter, so that many runs that died of one cause do not come back in step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tenacity

from supervisor.classify import FINAL, FINISHED, Incident

_JITTER = 0.25


@dataclass(frozen=True)
class RestartPolicy:
    """How often, and how soon: ``max_restarts`` within ``window_s``, waits from ``min_s`` up to ``max_s``."""

    max_restarts: int = 10
    window_s: float = 3600.0
    min_s: float = 1.0
    max_s: float = 60.0


@dataclass(frozen=True)
class History:
    """What went before: when restarts were granted, how the last attempt failed, how far the run has come.

    ``restarts`` are readings of the monotonic clock; ``barren`` counts the restarts since there was durable
    progress; ``durable_step`` is the newest step that is safe on disk, and ``judged_step`` what that was
    at the last decision.
    """

    restarts: tuple[float, ...] = ()
    barren: int = 0
    last: Incident | None = None
    durable_step: int = 0
    judged_step: int = 0


@dataclass(frozen=True)
class Verdict:
    """Start again after ``delay_s``, or not at all (None), and why."""

    delay_s: float | None
    reason: str
    history: History


def decide(
    history: History, incident: Incident, policy: RestartPolicy, now_s: float, jitter: float
) -> Verdict:
    """What follows an incident. ``jitter`` is a random number in [0, 1)."""
    if incident.kind == FINISHED or incident.kind in FINAL:
        return Verdict(None, "", history)
    if _repeats(history.last, incident):
        return Verdict(None, "it failed the same way twice before completing a step", history)
    if history.durable_step > history.judged_step:
        history = replace(history, restarts=(), barren=0, judged_step=history.durable_step)
    recent = tuple(at_s for at_s in history.restarts if now_s - at_s < policy.window_s)
    if len(recent) >= policy.max_restarts:
        return Verdict(None, _exhausted(policy), history)
    delay_s = _backoff_s(policy, history.barren, jitter)
    changed = replace(history, restarts=(*recent, now_s), barren=history.barren + 1, last=incident)
    return Verdict(delay_s, f"restart {len(recent) + 1} of {policy.max_restarts}", changed)


def _repeats(last: Incident | None, incident: Incident) -> bool:
    both_at_start = last is not None and last.at_start and incident.at_start
    return both_at_start and last is not None and incident.fingerprint == last.fingerprint


def _exhausted(policy: RestartPolicy) -> str:
    if policy.max_restarts == 0:
        return "restarts are switched off (--max-restarts 0)"
    window = f"{policy.window_s:g} s"
    return f"{policy.max_restarts} restarts within {window} brought no new checkpoint (--max-restarts)"


def _backoff_s(policy: RestartPolicy, barren: int, jitter: float) -> float:
    growing = tenacity.wait_exponential(multiplier=policy.min_s, max=policy.max_s)
    # tenacity computes from its retry state; of it the strategy reads the attempt's number alone.
    attempt = tenacity.RetryCallState(retry_object=tenacity.Retrying(), fn=None, args=(), kwargs={})
    attempt.attempt_number = barren + 1
    spread = 1.0 + _JITTER * (2.0 * jitter - 1.0)
    return min(policy.max_s, max(0.0, growing(attempt)) * spread)
