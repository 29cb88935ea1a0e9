"""Decides which of the valid checkpoints stay. Pure.

A checkpoint stays if any rule of the policy keeps it. Order is by generation. Wall times only measure how far
apart two checkpoints are, and may jump either way; after a jump more may stay than was promised, never fewer:

* The newest always stays, under any policy. So does the newest whose loss was finite (or is unknown): after
  the loss went to NaN unnoticed, the bad states must not evict the last good one.
* ``max_count``: the newest N stay.
* ``per_minutes``: from old to new, one stays for every n minutes: the first, and then each that is at least n
  minutes after the last one that stayed. If time goes backwards, a new segment begins with its own count. The
  first and the last of every segment stay, so that the next decision sees the jump too.
* ``every_steps``: steps lie on the run's grid, as in ``schedule``. The first checkpoint at or after each
  multiple of K stays, so with K = 100 and a checkpoint at 90, 120, 150, 180, 210: 120 and 210.
* ``best``: the N with the best loss or metric stay; of equals the older. A checkpoint without a value, or
  with one that is not finite, is never among them.

Two checkpoints of one generation are copies of one training state (``run.reseal`` makes a copy before it
removes the original). They count once, and stay or go together.

The decision is stable: applied to those that stayed, it keeps them all. Only a checkpoint that stayed as the
newest may go once a newer one exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from resilient.config import LOSS, Best, KeepPolicy


class Candidate(Protocol):
    """A valid checkpoint, as retention sees it.

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
    """The newest checkpoint whose loss is finite or unknown."""
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
    """The first checkpoint between each two multiples; none before the first multiple."""
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
    """The value that ranks a checkpoint; None when it is missing or not a finite number."""
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
