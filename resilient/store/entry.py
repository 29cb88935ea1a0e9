"""The values that go into a store and come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resilient.codec.tensors import Record
from resilient.errors import CorruptError, ResilientError
from resilient.store import layout
from resilient.store.manifest import Manifest


@dataclass(frozen=True)
class Draft:
    """A training state that is to become a checkpoint.

    ``step`` counts over the run, ``step_in_epoch`` within ``epoch``. ``records`` and ``extra`` are its
    content (see ``codec.container``). ``reason`` says why it is made ("schedule", "end", "exception",
    "signal"), ``failure`` whether that is a failure of the run. ``info`` is a small JSON object for the
    manifest. The store calls ``check`` after it has read everything and before it commits anything: it
    raises a ResilientError to abandon the checkpoint, for example when the memory was changed meanwhile.
    """

    prefix: str
    epoch: int
    step_in_epoch: int
    step: int
    records: Iterable[Record]
    extra: bytes
    reason: str
    failure: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Entry:
    """A checkpoint: its manifest, the digest of that manifest's file, and its folder."""

    directory: Path
    manifest: Manifest
    digest: str

    @property
    def generation(self) -> int:
        return self.manifest.generation

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def created(self) -> float:
        return self.manifest.created

    @property
    def info(self) -> Mapping[str, Any]:
        return self.manifest.info

    @property
    def name(self) -> str:
        return self.manifest.file_name

    # Cached: every removal looks at each checkpoint that stays.

    @cached_property
    def path(self) -> Path:
        return self.directory / self.name

    @cached_property
    def manifest_path(self) -> Path:
        return self.directory / layout.manifest_of(self.name)


@dataclass(frozen=True)
class FileFailure:
    """A file that could not be used, read or removed, and why.

    ``ours`` is False for a file of another run, which is no reason to refuse a fresh start.
    """

    name: str
    error: ResilientError
    ours: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.error}"


def split_corrupt(failures: Sequence[FileFailure]) -> tuple[tuple[FileFailure, ...], tuple[FileFailure, ...]]:
    """The corrupt checkpoints that were set aside, and all other failures."""
    corrupt = tuple(failure for failure in failures if isinstance(failure.error, CorruptError))
    return corrupt, tuple(failure for failure in failures if failure not in corrupt)


def skipped(failures: Sequence[FileFailure], directory: str) -> Iterator[str]:
    """One line for each checkpoint that recovery skipped; one for all of other runs, which may be many."""
    for failure in failures:
        if failure.ours:
            yield f"skipped an unusable checkpoint: {failure}"
    if others := sum(not failure.ours for failure in failures):
        what = "1 checkpoint" if others == 1 else f"{others} checkpoints"
        yield f"skipped {what} of other runs in {directory}"


@dataclass(frozen=True)
class Recovery:
    """The result of ``recover``: the checkpoints (newest first), and the files that it set aside, removed
    or could not handle."""

    entries: tuple[Entry, ...]
    quarantined: tuple[FileFailure, ...] = ()
    removed: tuple[str, ...] = ()
    failures: tuple[FileFailure, ...] = ()


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that was read in full, its ``extra``, and the newer ones that could not be used."""

    entry: Entry
    extra: bytes
    failures: tuple[FileFailure, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """The result of ``prune``: what it removed, set aside, could not remove, and left in place."""

    removed: tuple[Entry, ...] = ()
    quarantined: tuple[FileFailure, ...] = ()
    failures: tuple[FileFailure, ...] = ()
    staying: tuple[Entry, ...] = ()
