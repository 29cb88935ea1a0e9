"""Which checkpoints stay: a pure decision over the valid ones.

A checkpoint stays if any rule of the policy keeps it. Order is by generation. A checkpoint's wall time only
measures how far apart two of them are, and it may jump either way; a jump may keep more than was promised,
never less:

* The newest always stays, whatever the policy. So does the newest whose loss was finite (or is not known): a
  run whose loss has gone to NaN, and that nobody has looked at, must not push out the last good state.
* ``max_count``: the newest N stay.
* ``per_minutes``: going from old to new, one stays for every n minutes: the first, and then each that is at
  least n minutes after the last one that stayed. Where time goes backwards a new segment begins, with a
  count of its own; the first and the last of every segment stay, so that the next decision sees the jump
  too.
* ``every_steps``: steps lie on the run's grid, as in ``schedule``. The first checkpoint at or after each
  multiple of K stays, so with K = 100 and a checkpoint at 90, 120, 150, 180, 210: 120 and 210.
* ``best``: the N with the best loss or metric stay; of equals the older. A checkpoint without a value, or
  with one that is not finite, is never among them.

Two checkpoints of one generation are one training state twice (``run.reseal`` makes a copy before it
removes the original). They count once, and stay or go together.

The decision is stable: deciding again over what stayed keeps all of it, except that a newest one that only
stayed as such may go once a newer one is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from resilient.config import LOSS, Best, KeepPolicy


class Candidate(Protocol):
    """A valid checkpoint, as far as retention is concerned.

    ``created`` is its wall time in seconds. ``info`` may hold its ``loss``, and its ``metrics`` by name.
    """

    @property
    def generation(self) -> int: ...

    @property
    def created(self) -> float: ...

    @property
    def step(self) -> int: ...

    @property
    def info(self) -> Mapping[str, Any]: ...


C = TypeVar("C", bound=Candidate)


def kept(policy: KeepPolicy, candidates: Sequence[Candidate]) -> set[int]:
    """The generations of those valid checkpoints that stay; all others may be removed."""
    ordered = sorted(
        {candidate.generation: candidate for candidate in candidates}.values(),
        key=lambda candidate: candidate.generation,
    )
    if policy == KeepPolicy():
        return {candidate.generation for candidate in ordered}
    staying = [*ordered[-1:], *_newest_finite(ordered), *_by_count_or_time(policy, ordered)]
    if policy.every_steps is not None:
        staying += _first_per_cell(ordered, policy.every_steps)
    if policy.best is not None:
        staying += _best(ordered, policy.best)
    return {candidate.generation for candidate in staying}


def _newest_finite(ordered: list[C]) -> Iterable[C]:
    """Where the loss of the newest ones is not finite: the last one before that."""
    finite = [candidate for candidate in ordered if _has_finite_loss(candidate)]
    return finite[-1:]


def _has_finite_loss(candidate: Candidate) -> bool:
    loss = candidate.info.get(LOSS)
    return not isinstance(loss, float) or math.isfinite(loss)


def _by_count_or_time(policy: KeepPolicy, ordered: list[C]) -> Iterable[C]:
    if policy.max_count is not None:
        return ordered[-policy.max_count :]
    if policy.per_minutes is None:
        return ()
    window_s = policy.per_minutes * 60.0
    return [stays for part in _segments(ordered) for stays in _one_per_window(part, window_s)]


def _first_per_cell(ordered: list[C], every_steps: int) -> Iterable[C]:
    """Of the checkpoints between two multiples the first; none before the first multiple."""
    first: dict[int, C] = {}
    for candidate in ordered:
        first.setdefault(candidate.step // every_steps, candidate)
    first.pop(0, None)
    return first.values()


def _best(ordered: list[C], best: Best) -> Iterable[C]:
    sign = 1.0 if best.direction == "min" else -1.0
    known = [(sign * value, c) for c in ordered if (value := _value(c, best.by)) is not None]
    # The sort is stable: of equals the older comes first.
    known.sort(key=lambda pair: pair[0])
    return [candidate for _, candidate in known[: best.count]]


def _value(candidate: Candidate, by: str) -> float | None:
    """What a checkpoint is judged by; None where it is unknown or no number to compare."""
    metrics = candidate.info.get("metrics")
    value = candidate.info.get(LOSS) if by == LOSS else None
    if value is None and isinstance(metrics, Mapping):
        value = metrics.get(by)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _segments(ordered: Sequence[C]) -> Iterator[list[C]]:
    """The longest stretches in which time does not go backwards."""
    segment: list[C] = []
    for candidate in ordered:
        if segment and candidate.created < segment[-1].created:
            yield segment
            segment = []
        segment.append(candidate)
    if segment:
        yield segment


def _one_per_window(segment: Sequence[C], window_s: float) -> list[C]:
    """The first, one for each window after it, and the last of a segment."""
    staying = [segment[0]]
    for candidate in segment[1:]:
        if candidate.created - staying[-1].created >= window_s:
            staying.append(candidate)
    if staying[-1] is not segment[-1]:
        staying.append(segment[-1])
    return staying
