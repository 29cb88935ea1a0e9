"""When the disk will be full, from what was measured at each save: a pure forecast, and one warning in time.

Free space falls for two reasons: the run's own folder grows, until retention holds it where it is; and others
write. The two are told apart, so that a new run that has not kept its five checkpoints yet is not taken for
one that will fill the disk.

    observe(watching, sample, ...) -> the watching after it, and what to tell the person now, if anything
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_MOST_SAMPLES = 32
_LEAST_SAMPLES = 3
_LEAST_SPAN_S = 60.0
"""Of less a rate says nothing: one checkpoint would be a trend."""

_FEW = 3
_ENOUGH = 5
_SOON_S = 3600.0
_LATER_S = 2 * _SOON_S


@dataclass(frozen=True)
class Sample:
    """One measurement: monotonic time, what is free for us, what the run's own folder takes (bytes)."""

    at_s: float
    free_bytes: int
    own_bytes: int


@dataclass(frozen=True)
class Forecast:
    """``fits`` more checkpoints fit; the disk is full in ``left_s`` (infinity: not at this rate).

    ``bytes_per_s`` is what goes away now, ``own_share`` how much of it is the run's own.
    """

    fits: float
    left_s: float
    bytes_per_s: float
    own_share: float


@dataclass(frozen=True)
class GrowthHistory:
    """What was measured, newest last, and what has been warned of and not passed since."""

    samples: tuple[Sample, ...] = ()
    warned_few: bool = False
    warned_soon: bool = False


def forecast(samples: Sequence[Sample], checkpoint_bytes: int, own_most_bytes: float = math.inf) -> Forecast:
    """What follows from these samples, oldest first. ``checkpoint_bytes`` is the size of one checkpoint.

    ``own_most_bytes`` is where retention will hold the run's folder; infinity where it grows for ever.
    """
    newest = samples[-1]
    fits = newest.free_bytes / checkpoint_bytes if checkpoint_bytes > 0 else math.inf
    if len(samples) < _LEAST_SAMPLES or newest.at_s - samples[0].at_s < _LEAST_SPAN_S:
        return Forecast(fits, math.inf, 0.0, 0.0)
    falling = max(0.0, -_slope(samples, lambda sample: sample.free_bytes))
    own = min(falling, max(0.0, _slope(samples, lambda sample: sample.own_bytes)))
    room = max(0.0, own_most_bytes - newest.own_bytes)
    left_s = _left_s(newest.free_bytes, own, falling - own, room)
    return Forecast(fits, left_s, falling, own / falling if falling else 0.0)


def _left_s(free_bytes: float, own: float, others: float, room: float) -> float:
    """Until nothing is free: the own growth stops once it has taken its ``room``."""
    if own + others <= 0:
        return math.inf
    together_s = free_bytes / (own + others)
    if own * together_s <= room:
        return together_s
    return (free_bytes - room) / others if others > 0 else math.inf


def _slope(samples: Sequence[Sample], value: Callable[[Sample], int]) -> float:
    """Bytes a second by least squares: retention makes the values jump up and down by a checkpoint."""
    count = len(samples)
    middle_s = math.fsum(sample.at_s for sample in samples) / count
    middle = math.fsum(value(sample) for sample in samples) / count
    spread = math.fsum((sample.at_s - middle_s) ** 2 for sample in samples)
    together = math.fsum((sample.at_s - middle_s) * (value(sample) - middle) for sample in samples)
    return together / spread if spread else 0.0


def observe(
    watching: GrowthHistory, sample: Sample, checkpoint_bytes: int, own_most_bytes: float = math.inf
) -> tuple[GrowthHistory, str | None]:
    """Takes a measurement; a warning for the person, once until there is clearly room again."""
    samples = (*_since_freed(watching.samples, sample), sample)[-_MOST_SAMPLES:]
    coming = forecast(samples, checkpoint_bytes, own_most_bytes)
    few = coming.fits < _FEW
    soon = coming.left_s < _SOON_S
    text = None
    if few and not watching.warned_few:
        text = _few(coming)
    elif soon and not watching.warned_soon:
        text = _soon(coming)
    changed = replace(
        watching,
        samples=samples,
        warned_few=few or (watching.warned_few and coming.fits < _ENOUGH),
        warned_soon=soon or (watching.warned_soon and coming.left_s < _LATER_S),
    )
    return changed, text


def _since_freed(samples: tuple[Sample, ...], sample: Sample) -> tuple[Sample, ...]:
    """Somebody has made room that is not the run's own: what was measured before says nothing any more."""
    if not samples:
        return ()
    last = samples[-1]
    freed = sample.free_bytes - last.free_bytes
    own = max(0, last.own_bytes - sample.own_bytes)
    return () if freed - own > last.free_bytes / 4 or sample.at_s < last.at_s else samples


def _few(coming: Forecast) -> str:
    if coming.fits < 1:
        return "the disk is full: not one more checkpoint fits; make room, or saving will fail"
    number = "one more checkpoint fits" if coming.fits < 2 else "two more checkpoints fit"
    return f"the disk is almost full: only {number}; make room"


def _soon(coming: Forecast) -> str:
    minutes = max(1, round(coming.left_s / 60))
    rate = f"{coming.bytes_per_s * 60 / 1e6:.0f} MB a minute"
    whose = "most of it this run's own" if coming.own_share > 0.5 else "most of it not this run's"
    return f"the disk will be full in about {minutes} min: {rate}, {whose}; make room"


def measure(root: Path, at_s: float) -> Sample:
    """Looks at a run's folder. Raises OSError; files that vanish meanwhile are none."""
    status = os.statvfs(root)
    return Sample(at_s, status.f_bavail * status.f_frsize, _taken(root))


def _taken(root: Path) -> int:
    taken = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                taken += os.stat(os.path.join(folder, name), follow_symlinks=False).st_blocks * 512
            except OSError:
                continue
    return taken
