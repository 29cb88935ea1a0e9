"""The floor: how far a run had come, recorded outside its directory.

    $XDG_CONFIG_HOME/resilient/floors/<run>.json

    {"floor": 1, "run_id": ..., "seal": {...},
     "homes": {"<machine>:<run directory>": {"checkpoint/rank_0": [12, 40, "CKP_rank_0-1_40.ckpt"]}}}

For each folder of checkpoints it holds the generation, step and name of the newest acknowledged one. Somebody
who restores an older copy of the run directory, or deletes its newest checkpoint, does not change this file.
A start that finds less on disk than the floor says reports that and asks (``presence``). The floor is sealed
like run.json.

* It is written after the acknowledgement: it may lag behind the disk after a crash, and is never ahead of it.
* A copy of a run is a separate run with the same run_id, so each directory has its own entry. Machines that
  share a home directory have separate entries too, because the same path may be another disk there; the
  entry of another machine leads to a warning only.
* A forged or lost floor adds or omits a question. It never makes a state acceptable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient.errors import StorageError
from resilient.host.world import World
from resilient.run import record_seal
from resilient.run.places import FollowedPlace
from resilient.run.record_seal import Seal
from resilient.store import commit

FORMAT = 1
KIND = "floor"
_LIMIT_BYTES = 1024 * 1024
_MAX_HOMES = 64
_NONSENSE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class Height:
    """The newest acknowledged checkpoint of one folder."""

    generation: int
    step: int
    name: str


Heights = Mapping[str, Height]
"""Heights by folder: a path relative to the run's directory if it is inside, otherwise absolute."""


@dataclass(frozen=True)
class Floor:
    """The content of the file: heights by home, and the state of its seal."""

    homes: Mapping[str, Heights] = field(default_factory=dict)
    seal: Seal = Seal.UNSEALED

    def of(self, *roots: Path) -> Floor | None:
        """This floor; None when it knows none of these directories: the run there is a copy."""
        return self if any(self.knows(root) for root in roots) else None

    def knows(self, root: Path) -> bool:
        """Whether it has an entry for a directory of this machine, under any of its names."""
        return any(name in self.homes for name in _names(root))

    def heights(self, root: Path) -> Heights:
        """How far the run in this directory had come: the highest of the entries under its names."""
        heights: Heights = {}
        for name in _names(root):
            heights = merged(heights, self.homes.get(name, {}))
        return heights

    def elsewhere(self, root: Path) -> Mapping[str, Heights]:
        """The heights that other machines recorded for a run in the same directory, by machine."""
        here = _names(root)
        found: dict[str, Heights] = {}
        for home, heights in self.homes.items():
            machine, _, path = home.partition(":")
            if home not in here and path in (str(root), os.path.realpath(root)):
                found[machine] = merged(found.get(machine, {}), heights)
        return found


def home_of(root: Path) -> str:
    """The name of a run directory on this machine, with links resolved."""
    return f"{os.uname().nodename}:{os.path.realpath(root)}"


def _names(root: Path) -> tuple[str, ...]:
    """The name of a run directory, and the one from versions that did not resolve links."""
    return home_of(root), f"{os.uname().nodename}:{root}"


def folder_of(root: Path, directory: Path) -> str:
    """The name of a folder of checkpoints in ``Heights``."""
    return str(directory.relative_to(root) if directory.is_relative_to(root) else directory)


def merged(before: Heights, after: Heights) -> Heights:
    """The higher of both for each folder."""
    higher = {
        folder: height
        for folder, height in after.items()
        if folder not in before or height.generation >= before[folder].generation
    }
    return {**before, **higher}


def moved_along(root: Path, heights: Heights, followed: Iterable[FollowedPlace]) -> Heights:
    """The heights under the names of their folders after the run was moved."""
    moved: Heights = {}
    for folder, height in heights.items():
        directory = root / folder
        for place in followed:
            if directory.is_relative_to(place.before):
                directory = place.now / directory.relative_to(place.before)
                break
        moved = merged({folder_of(root, directory): height}, moved)
    return moved


class FloorFile:
    """The floor of one run on disk."""

    def __init__(self, world: World, config_home: Path, run_id: str, keys: Sequence[bytes]) -> None:
        # Hashed, because run.json may claim any run_id, path separators included.
        name = hashlib.sha256(run_id.encode("utf-8", "replace")).hexdigest()[:32]
        self.path = config_home / "resilient" / "floors" / f"{name}.json"
        self._world = world
        self._run_id = run_id
        self._keys = tuple(keys)

    def read(self) -> Floor | None:
        """The file's content; None when it does not exist. Raises StorageError, ValueError for nonsense."""
        try:
            content = json.loads(self._world.files.read(self.path, _LIMIT_BYTES))
            homes = {home: _decode(heights) for home, heights in content["homes"].items()}
            if content["floor"] != FORMAT or content["run_id"] != self._run_id:
                raise ValueError("it is another run's, or of a later version")
        except FileNotFoundError:
            return None
        except _NONSENSE as error:
            raise ValueError(f"it makes no sense: {error}") from error
        return Floor(homes, record_seal.check(content, self._keys, KIND))

    def write(self, root: Path, heights: Heights, *, instead_of: Path | None = None) -> None:
        """Records the heights of a directory durably; ``instead_of`` is its path from before a move.

        The entries of other directories stay. Raises StorageError.
        """
        try:
            known = self.read()
        except ValueError:
            known = None
        homes = dict(known.homes) if known is not None else {}
        for name in (*_names(root), *(_names(instead_of) if instead_of is not None else ())):
            homes.pop(name, None)
        # The most recent one comes last, so the limit drops the oldest.
        homes[home_of(root)] = heights
        kept = dict(list(homes.items())[-_MAX_HOMES:])
        content: dict[str, Any] = {
            "floor": FORMAT,
            "run_id": self._run_id,
            "homes": {name: _encode(heights) for name, heights in kept.items()},
        }
        data = (json.dumps(record_seal.seal(content, self._keys, KIND)) + "\n").encode()
        self._world.files.make_directory(self.path.parent)
        commit.rewrite(self._world, self.path, data)

    def reseal(self, root: Path, forgotten: Iterable[Path] = ()) -> None:
        """Seals the file with the new keys; does nothing without a file.

        It drops the ``forgotten`` places of the run in ``root``. Raises StorageError.
        """
        try:
            known = self.read()
        except ValueError:
            return
        if known is None:
            return
        places = [str(place) for place in forgotten]
        heights = known.heights(root)
        left = {
            f: h for f, h in heights.items() if not any(str(root / f).startswith(f"{p}/") for p in places)
        }
        self.write(root, left)


def lodger(world: World, config_home: Path, root: Path, run_id: str) -> str:
    """The run_id of another run whose floor says that it saved in this directory; "" for none."""
    folder = config_home / "resilient" / "floors"
    try:
        files = [folder / name for name in sorted(world.files.names(folder)) if name.endswith(".json")]
    except StorageError:
        return ""
    for path in files:
        # It may be another run's floor: one that cannot be read says nothing.
        with contextlib.suppress(FileNotFoundError, StorageError, *_NONSENSE):
            content = json.loads(world.files.read(path, _LIMIT_BYTES))
            other = str(content["run_id"])
            if other != run_id and any(content["homes"].get(name) for name in _names(root)):
                return other
    return ""


def _encode(heights: Heights) -> dict[str, list[Any]]:
    return {folder: [h.generation, h.step, h.name] for folder, h in heights.items()}


def _decode(value: Any) -> dict[str, Height]:
    heights = {}
    for folder, (generation, step, name) in value.items():
        if type(generation) is not int or type(step) is not int or not isinstance(name, str):
            raise TypeError("an entry is not a generation, a step and a name")
        if "\0" in folder or not 0 <= step < 2**53 or not 0 <= generation < 2**53:
            raise ValueError("an entry is out of range")
        heights[folder] = Height(generation, step, name)
    return heights


def read_quietly(file: FloorFile) -> tuple[Floor | None, str]:
    """The content of the file, or why it cannot be read: a run works without a floor."""
    try:
        return file.read(), ""
    except (StorageError, ValueError) as error:
        return None, f"cannot read {file.path}, so an older copy of this run would go unnoticed: {error}"
