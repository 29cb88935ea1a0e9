"""Configuration as frozen values, and the only reader of the environment.

argv and environment → these dataclasses → constructors; nothing else looks at ``os.environ``.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ENC_MODES = ("AES-GCM", "AES-CBC", "SM4-CBC")
LINK_FD_VARIABLE = "RESILIENT_LINK_FD"
SAVE_SIGNAL = int(getattr(signal, "SIGRTMIN", 34)) + 3
"""The signal that asks a supervisor or a worker for a checkpoint now."""
LOSS = "loss"
DIRECTIONS = ("min", "max")


@dataclass(frozen=True)
class SavePolicy:
    """When a scheduled checkpoint is made: every ``every_steps`` steps, or every ``every_s`` seconds.

    At most one of the two is set. With neither, only the end of a training call saves.
    """

    every_steps: int | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        assert self.every_steps is None or self.every_s is None, "one save policy at a time"
        assert self.every_steps is None or self.every_steps > 0
        assert self.every_s is None or self.every_s > 0


@dataclass(frozen=True)
class Best:
    """The ``count`` checkpoints with the best value of ``by``: "loss", or the name of a metric.

    ``direction`` says which values are better: "min" or "max".
    """

    count: int
    by: str = LOSS
    direction: str = "min"

    def __post_init__(self) -> None:
        assert self.count > 0
        assert self.by
        assert self.direction in DIRECTIONS

    @classmethod
    def parse(cls, count: int, text: str) -> Best:
        """``text`` is "loss", or a metric with its direction: "accuracy:max". Raises ValueError."""
        by, _, direction = text.rpartition(":")
        if by and direction in DIRECTIONS:
            return cls(count, by, direction)
        if text == LOSS:
            return cls(count)
        raise ValueError(
            f"{text!r} does not say which values are better: write {text or 'NAME'}:max or :min, or loss"
        )


@dataclass(frozen=True)
class KeepPolicy:
    """Which checkpoints stay: those that at least one of its rules keeps.

    ``max_count``: the newest N. ``per_minutes``: one per so many minutes. At most one of these two is set.
    ``every_steps``: the first one at or after each multiple of K steps. ``best``: the best N by loss or
    metric. With no rule at all, every checkpoint stays. The newest always does.
    """

    max_count: int | None = None
    per_minutes: int | None = None
    every_steps: int | None = None
    best: Best | None = None

    def __post_init__(self) -> None:
        assert self.max_count is None or self.per_minutes is None, "one keep policy at a time"
        assert self.max_count is None or self.max_count > 0
        assert self.per_minutes is None or self.per_minutes > 0
        assert self.every_steps is None or self.every_steps > 0


@dataclass(frozen=True)
class Sealing:
    """How checkpoints are encrypted: a mode of ``ENC_MODES`` with a key of its length, or neither.

    ``old_keys`` open older checkpoints and seal nothing. Keys stay out of ``repr``.
    """

    mode: str | None = None
    key: bytes | None = field(default=None, repr=False)
    old_keys: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def holds_key(self) -> bool:
        """Whether there is a key, a current or an old one."""
        return self.key is not None or bool(self.old_keys)

    def __post_init__(self) -> None:
        assert (self.mode is None) == (self.key is None), "a mode needs a key, and a key a mode"
        assert self.mode is None or self.mode in ENC_MODES


@dataclass(frozen=True)
class MirrorPolicy:
    """Whether a worker keeps its newest state in memory that outlives it, and how often.

    ``every`` is a number of steps, None for as often as it costs little; ``slots`` is 2 or 3, None to choose
    by the need of the saves.
    """

    on: bool = True
    every: int | None = None
    slots: int | None = None

    def __post_init__(self) -> None:
        assert self.every is None or self.every > 0
        assert self.slots in (None, 2, 3)


@dataclass(frozen=True)
class Shun:
    """States that no attempt may resume from: those of ``step`` or later, made in ``attempt`` or before.

    A later attempt that repeats the same steps makes other states.
    """

    step: int
    attempt: int

    def covers(self, step: int, attempt: int) -> bool:
        """Whether a state of this step, made in this attempt, is one of them."""
        return step >= self.step and attempt <= self.attempt

    def includes(self, other: Shun) -> bool:
        """Whether this one covers every state that the other one covers."""
        return self.covers(other.step, other.attempt)


@dataclass(frozen=True)
class Origin:
    """Which states an attempt may resume from, and which batches it skips.

    It resumes from no state that ``shunned`` covers, and with ``finite`` from none whose loss was not finite.
    It skips the batches of the steps in ``skipped`` when it begins right before them.
    """

    shunned: tuple[Shun, ...] = ()
    finite: bool = False
    skipped: tuple[int, ...] = ()

    def allows(self, step: int, info: Mapping[str, Any]) -> bool:
        """Whether a checkpoint of this step, with this ``info`` in its manifest, may be used."""
        attempt, loss = info.get("attempt", 0), info.get(LOSS)
        if not isinstance(attempt, int) or any(rule.covers(step, attempt) for rule in self.shunned):
            return False
        return not (self.finite and isinstance(loss, float) and not math.isfinite(loss))

    def shunning(self, rule: Shun) -> Origin:
        """Adds a rule. Drops those that it includes: the supervisor sends the list to each worker."""
        if any(known.includes(rule) for known in self.shunned):
            return self
        kept = [known for known in self.shunned if not rule.includes(known)]
        return replace(self, shunned=(*kept, rule))

    def without_newest_rule(self) -> Origin:
        """Removes the rule that came last."""
        return replace(self, shunned=self.shunned[:-1])

    def skipping(self, step: int) -> Origin:
        """Adds a step whose batch is skipped."""
        return self if step in self.skipped else replace(self, skipped=(*self.skipped, step))

    def to_json(self) -> list[Any]:
        """The value as JSON."""
        return [[[rule.step, rule.attempt] for rule in self.shunned], self.finite, list(self.skipped)]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> Origin:
        """The inverse of :meth:`to_json`."""
        shunned, finite, skipped = value
        return cls(tuple(Shun(*rule) for rule in shunned), finite, tuple(skipped))


DEFAULT_SAVE = SavePolicy(every_s=300.0)
DEFAULT_KEEP = KeepPolicy(max_count=5)


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration that a supervised worker receives over the link before the script runs.

    ``seed`` is the run's seed, chosen once. Checkpoints go to ``directory`` unless the script names another
    place. ``attempt`` counts from 1. ``accepted`` are the digests of unencrypted manifests that count
    although there is a key now. ``saved_in`` are the directories in which the run has kept checkpoints, once
    it has saved any: a worker that finds none there does not begin from zero, unless ``may_begin_anew`` says
    that the user accepted that. ``take_from_script`` names hyperparameters whose value comes from the script,
    not from the state. ``extend``: a finished training call continues when the script asks for more epochs.
    """

    run_id: str
    directory: Path
    seed: int
    attempt: int = 1
    rank: int = 0
    world_size: int = 1
    save: SavePolicy = DEFAULT_SAVE
    keep: KeepPolicy = DEFAULT_KEEP
    sealing: Sealing = Sealing()
    accepted: tuple[str, ...] = ()
    saved_in: tuple[str, ...] = ()
    may_begin_anew: bool = False
    mirror: MirrorPolicy = MirrorPolicy(on=False)
    origin: Origin = Origin()
    take_from_script: tuple[str, ...] = ()
    extend: bool = False


@dataclass(frozen=True)
class Environment:
    """The values that we read from the process environment."""

    link_fd: int | None
    rank: int
    config_home: Path

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Environment:
        """Reads ``environ``, by default the process's own."""
        variables = os.environ if environ is None else environ
        link_fd = variables.get(LINK_FD_VARIABLE)
        home = variables.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return cls(
            link_fd=int(link_fd) if link_fd else None,
            rank=int(variables.get("RANK_ID") or 0),
            config_home=Path(home),
        )


def forget_link() -> None:
    """Removes the link from the environment: children of the script are not workers of the supervisor."""
    os.environ.pop(LINK_FD_VARIABLE, None)
