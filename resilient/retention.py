"""Which checkpoints stay: a pure decision over the valid ones.

Order is by generation. A checkpoint's wall time only measures how far apart two of them are, and it may
jump either way; a jump may keep more than was promised, never less:

* The newest always stays, whatever the policy.
* ``max_count``: the newest N stay.
* ``per_minutes``: going from old to new, one stays for every n minutes: the first, and then each that is at
  least n minutes after the last one that stayed. Where time goes backwards a new segment begins, with a
  count of its own; the first and the last of every segment stay, so that the next decision sees the jump
  too.

The decision is stable: deciding again over what stayed keeps all of it, except that a newest one that only
stayed as such may go once a newer one is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from resilient.config import KeepPolicy


class Candidate(Protocol):
    """A valid checkpoint, as far as retention is concerned: ``created`` is its wall time in seconds."""

    @property
    def generation(self) -> int: ...

    @property
    def created(self) -> float: ...


C = TypeVar("C", bound=Candidate)


def kept(policy: KeepPolicy, candidates: Sequence[Candidate]) -> set[int]:
    """The generations of those valid checkpoints that stay; all others may be removed."""
    ordered = sorted(candidates, key=lambda candidate: candidate.generation)
    if policy.max_count is not None:
        ordered = ordered[-policy.max_count :]
    elif policy.per_minutes is not None:
        window_s = policy.per_minutes * 60.0
        ordered = [stays for part in _segments(ordered) for stays in _one_per_window(part, window_s)]
    return {candidate.generation for candidate in ordered}


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
