"""Where a run's checkpoints are: in its own directory, and where else its script keeps them.

run.json names these places by their absolute paths, and the directory it was itself in when the run was last
worked on (``home``). Both are told apart from where it is now:

    moved     nothing of this run is at home any more: what was named below home is below the directory now
    copied    the run is still at home, under the same run_id: what is named is the original's. The copy has
              what was copied with it, below its own directory; every place outside belongs to the original
    shared    a place has a run.json of another run: a process without a supervisor has used it too. Its
              checkpoints are told apart by their manifests; of what has no manifest nobody knows whose it is
    missing   a place is not there: removed, or not mounted
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from resilient.errors import StorageError
from resilient.host.directories import is_directory, is_same
from resilient.host.files import Files
from resilient.store import layout
from resilient.store.rundir import RunRecord

_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Other:
    """A place that is named, and belongs to the run in the directory ``owner``."""

    place: Path
    owner: Path


@dataclass(frozen=True)
class Places:
    """The places of one run.

    ``own`` hold its checkpoints, the last one in use first; without any it is the run's directory. ``shared``
    are those of them that another run has used too. ``named`` is what the run's record should name.
    """

    root: Path
    own: tuple[Path, ...]
    shared: frozenset[Path]
    others: tuple[Other, ...]
    missing: tuple[Path, ...]
    named: tuple[Path, ...]

    @classmethod
    def alone(cls, root: Path) -> Places:
        """Those of a directory without a record that could name any."""
        return cls(root, (root,), frozenset(), (), (), ())

    def settle(self, record: RunRecord, *, forget_missing: bool = False) -> RunRecord:
        """The record as it is to be written where the run is now: a copy becomes a run of its own."""
        named = [place for place in self.named if not (forget_missing and place in self.missing)]
        return replace(record, home=str(self.root), checkpoints=tuple(map(str, named)))

    def ranks(self, files: Files, world_size: int) -> list[int]:
        """The ranks of the run, and those it has saved of when it was a larger one."""
        found = (
            layout.rank_of_folder(name) for place in self.own for name in files.names(place / "checkpoint")
        )
        return sorted({*range(world_size), *(rank for rank in found if rank is not None)})

    def remarks(self) -> Iterator[str]:
        """What there is to say of places that are left alone."""
        for other in self.others:
            yield f"{other.place} belongs to the run in {other.owner}: not touched"
        yield from self.absences()

    def absences(self) -> Iterator[str]:
        """What there is to say of places that are missing."""
        for place in self.missing:
            yield f"{place}, where this run has kept checkpoints, is not there (removed, or not mounted)"


def find_places(files: Files, root: Path, record: RunRecord) -> Places:
    """Looks for the places of the run whose record lies in ``root``."""
    home = Path(record.home) if record.home else root
    copied = is_copy(files, root, record)
    own: list[Path] = []
    shared: set[Path] = set()
    others: list[Other] = []
    missing: list[Path] = []
    named: list[Path] = []
    for name in record.checkpoints:
        place = _moved(home / name, home, root)
        if place in named or place in missing or any(place == other.place for other in others):
            continue
        inside = _is_within(place, root) or is_same(place, root)
        owner = "" if inside else _run_id(files, place)
        if owner == record.run_id:
            others.append(Other(place, place))
        elif copied and not inside:
            others.append(Other(place, home))
        else:
            named.append(place)
            if not is_directory(place):
                missing.append(place)
            elif _holds(place):
                own.insert(0, place)
                shared.update([place] if owner else [])
    if _holds(root) and not any(is_same(place, root) for place in own):
        own.append(root)
    return Places(root, tuple(own) or (root,), frozenset(shared), tuple(others), tuple(missing), tuple(named))


def homes(files: Files, root: Path, record: RunRecord) -> tuple[Path, ...]:
    """Where the run in ``root`` is, and where it was before it was moved; a copy was nowhere else."""
    home = Path(record.home or root)
    return (root,) if is_copy(files, root, record) else tuple(dict.fromkeys((root, home)))


def is_copy(files: Files, root: Path, record: RunRecord) -> bool:
    """Whether the run is still where its record says, so that what lies in ``root`` is a copy of it."""
    home = Path(record.home) if record.home else root
    return not is_same(home, root) and _run_id(files, home) == record.run_id


def _moved(place: Path, home: Path, root: Path) -> Path:
    """Where a place is, now that home is in ``root``."""
    return root / place.relative_to(home) if _is_within(place, home) else place


def _is_within(place: Path, directory: Path) -> bool:
    """Whether a place is a directory or below it, by its name: ``..`` may lead anywhere."""
    return place == directory or (directory in place.parents and ".." not in place.parts)


def _holds(place: Path) -> bool:
    return is_directory(place / "checkpoint")


def _run_id(files: Files, directory: Path) -> str:
    """Whose run.json lies there; "" where none does that can be read."""
    try:
        content = json.loads(files.read(directory / "run.json", _LIMIT_BYTES))
        run_id = content["run_id"]
    except (FileNotFoundError, StorageError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return run_id if isinstance(run_id, str) else ""
