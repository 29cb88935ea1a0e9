"""Finds the places of a run's checkpoints: its own directory, and others that its script names.

run.json names these places by their absolute paths, and the directory that the run was in when it last ran
(``home``). Comparing ``home`` with the current directory of the run gives these cases:

    moved     the run is no longer at home: a place named below home is below the current directory
    copied    the run is still at home, under the same run_id: the named places are the original's. The copy
              owns what was copied below its own directory; every place outside belongs to the original
    beside    a whole project was moved or copied, with a place beside home: we follow the relative path
              from home to it, and take it only if it holds checkpoints that claim to be this run's
    shared    a place has a run.json of another run: a process without a supervisor has used it too. The
              manifests tell the checkpoints apart; the owner of a file without a manifest is unknown
    missing   a place does not exist: it was removed, or is not mounted
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from resilient.errors import StorageError
from resilient.host.directories import is_directory, is_same
from resilient.host.files import Files
from resilient.run.rundir import RunRecord
from resilient.store import layout, manifest

_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class OtherPlace:
    """A place that run.json names, but that belongs to the run in the directory ``owner``.

    ``copy`` is the one that was copied with this run; None when there is none.
    """

    place: Path
    owner: Path
    copy: Path | None = None


@dataclass(frozen=True)
class FollowedPlace:
    """A place outside home that was moved with the run: its path before and now."""

    before: Path
    now: Path


@dataclass(frozen=True)
class Places:
    """The places of one run.

    ``own`` hold its checkpoints, the last used first; the run's directory if no place does. ``shared`` are
    those of them that another run has used too. ``named`` are the places that the run's record should name,
    ``followed`` those whose path changed when the run was moved.
    """

    root: Path
    own: tuple[Path, ...]
    shared: frozenset[Path]
    others: tuple[OtherPlace, ...]
    missing: tuple[Path, ...]
    named: tuple[Path, ...]
    followed: tuple[FollowedPlace, ...] = ()

    @classmethod
    def alone(cls, root: Path) -> Places:
        """The places of a directory without a record."""
        return cls(root, (root,), frozenset(), (), (), ())

    def settle(self, record: RunRecord, *, forget_missing: bool = False) -> RunRecord:
        """The record to write in the current directory: a copy becomes a separate run."""
        named = [place for place in self.named if not (forget_missing and place in self.missing)]
        return replace(record, home=str(self.root), checkpoints=tuple(map(str, named)))

    def ranks(self, files: Files, world_size: int) -> list[int]:
        """The ranks of the run, and those it saved when its world was larger."""
        found = (
            layout.rank_of_folder(name) for place in self.own for name in files.names(place / "checkpoint")
        )
        return sorted({*range(world_size), *(rank for rank in found if rank is not None)})

    def remarks(self) -> Iterator[str]:
        """The remarks on places that are not used, for the user."""
        for other in self.others:
            yield f"{other.place} belongs to the run in {other.owner}: not touched"
        yield from self.absences()

    def absences(self) -> Iterator[str]:
        """The remarks on missing places, for the user."""
        for place in self.missing:
            yield f"{place}, where this run has kept checkpoints, does not exist (removed, or not mounted)"


def find_places(files: Files, root: Path, record: RunRecord) -> Places:
    """Finds the places of the run whose record lies in ``root``."""
    home = Path(record.home) if record.home else root
    copied = is_copy(files, root, record)
    own: list[Path] = []
    shared: set[Path] = set()
    others: list[OtherPlace] = []
    missing: list[Path] = []
    named: list[Path] = []
    followed: list[FollowedPlace] = []
    for name in record.checkpoints:
        place = _moved(home / name, home, root)
        if place in named or place in missing or any(place == other.place for other in others):
            continue
        inside = _is_within(place, root) or is_same(place, root)
        owner = "" if inside else _run_id(files, place)
        beside = None if inside else _beside(files, place, root, record)
        mine = [beside] if beside is not None else []
        if owner == record.run_id or (copied and not inside):
            others.append(OtherPlace(place, place if owner == record.run_id else home, beside))
        elif beside is not None and not _keeps(files, place, record.run_id):
            followed.append(FollowedPlace(place, beside))
        else:
            mine.append(place)
        for one in dict.fromkeys(one for one in mine if one not in named):
            named.append(one)
            if not is_directory(one):
                missing.append(one)
            elif _holds(one):
                own.insert(0, one)
                shared.update([one] if not inside and _run_id(files, one) else [])
    if _holds(root) and not any(is_same(place, root) for place in own):
        own.append(root)
    return Places(
        root,
        tuple(own) or (root,),
        frozenset(shared),
        tuple(others),
        tuple(missing),
        tuple(named),
        tuple(followed),
    )


def homes(files: Files, root: Path, record: RunRecord) -> tuple[Path, ...]:
    """The directory of the run now, and the one before it was moved; only the first for a copy."""
    home = Path(record.home or root)
    return (root,) if is_copy(files, root, record) else tuple(dict.fromkeys((root, home)))


def is_copy(files: Files, root: Path, record: RunRecord) -> bool:
    """Whether ``root`` is a copy, because the run is still in the directory that its record names."""
    home = Path(record.home) if record.home else root
    return not is_same(home, root) and _run_id(files, home) == record.run_id


def _moved(place: Path, home: Path, root: Path) -> Path:
    """The path of a place after home moved to ``root``."""
    return root / place.relative_to(home) if _is_within(place, home) else place


def _beside(files: Files, place: Path, root: Path, record: RunRecord) -> Path | None:
    """The place at the same path relative to the run as ``place`` had to home, if it holds its checkpoints.

    It is there when a user moved or copied a whole project, and the script names it by its new path.
    """
    home = Path(record.home or root)
    if not (home.is_absolute() and place.is_absolute()) or is_same(home, root):
        return None
    beside = Path(os.path.normpath(root / os.path.relpath(place, home)))
    # A place that the record names is handled on its own; for a copy it is the original's.
    if any(is_same(beside, home / name) for name in record.checkpoints):
        return None
    if _run_id(files, beside) == record.run_id or not _keeps(files, beside, record.run_id):
        return None
    return beside


def _keeps(files: Files, place: Path, run_id: str) -> bool:
    """Whether a checkpoint there claims to be this run's; each is authenticated before use."""
    if not _holds(place):
        return False
    checkpoints = place / "checkpoint"
    try:
        folders = [checkpoints / n for n in files.names(checkpoints) if layout.rank_of_folder(n) is not None]
        manifests = (
            folder / name
            for folder in folders
            for name in files.names(folder)
            if name.endswith(layout.MANIFEST_SUFFIX) and not layout.is_temporary(name)
        )
        return any(_claimed_by(files, path) == run_id for path in manifests)
    except StorageError:
        return False


def _claimed_by(files: Files, path: Path) -> object:
    try:
        return manifest.claims(files.read(path, manifest.LIMIT_BYTES)).get("run_id")
    except (FileNotFoundError, StorageError):
        return None


def _is_within(place: Path, directory: Path) -> bool:
    """Whether a place is this directory or below it by its path; one with ``..`` may lead anywhere."""
    return place == directory or (directory in place.parents and ".." not in place.parts)


def _holds(place: Path) -> bool:
    return is_directory(place / "checkpoint")


def _run_id(files: Files, directory: Path) -> str:
    """The run_id in the run.json there; "" when there is no readable one."""
    try:
        content = json.loads(files.read(directory / "run.json", _LIMIT_BYTES))
        run_id = content["run_id"]
    except (FileNotFoundError, StorageError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return run_id if isinstance(run_id, str) else ""
