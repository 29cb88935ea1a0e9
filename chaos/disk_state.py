"""A whole disk as a value, and what is left of it after a loss of power.

What a crash may do is what POSIX does not rule out:

* Bytes written since a file's last sync may be all there, cut off at any block, there with any block as zeros
  or as something else, or missing.
* Name changes since a directory's last sync may each have happened or not, in any combination. A rename
  within a folder is one change; between two folders it is one in each. With ``split`` it is two in any case,
  as on file systems without a journal: the new name, and the end of the old one. Either may be lost, or both.

The state is frozen, hashable and comparable, so that an enumerator of all crashes can walk over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

BLOCK_BYTES = 256
"""What a disk writes at once, small enough for the files of tests."""

Choose = Callable[[int], int]
"""Picks one of n possibilities: returns a number from 0 to n - 1."""


@dataclass(frozen=True)
class Node:
    """A file without its names: durable bytes, and what has been written since, write by write."""

    synced: bytes = b""
    pending: tuple[bytes, ...] = ()
    poisoned: bool = False
    stamp: int = 0

    @cached_property
    def content(self) -> bytes:
        return b"".join((self.synced, *self.pending))


Change = tuple[tuple[str, int | None], ...]
"""Names that change together: each points to a file's number from now on, or (None) is gone."""


@dataclass(frozen=True)
class Folder:
    """The names in a directory: durable ones, and the changes since."""

    synced: tuple[tuple[str, int], ...] = ()
    pending: tuple[Change, ...] = ()

    @cached_property
    def names(self) -> dict[str, int]:
        return _apply(dict(self.synced), self.pending)


@dataclass(frozen=True)
class DiskState:
    """A whole disk as a value. ``time`` counts changes, and stamps files like a very fine clock."""

    nodes: tuple[tuple[int, Node], ...] = ()
    folders: tuple[tuple[str, Folder], ...] = (("/", Folder()),)
    time: int = 0


def place(path: Path | str) -> tuple[str, str]:
    """A path's folder and its name in it. Strings: millions of states are hashed and compared by them."""
    folder, _, name = str(path).rpartition("/")
    return folder or "/", name


def after_power_loss(state: DiskState, choose: Choose, *, split: bool = False) -> DiskState:
    """One of the states in which the disk may be found after the machine has lost its power."""
    folders = {path: _surviving_folder(folder, choose, split) for path, folder in state.folders}
    named = {number for folder in folders.values() for _, number in folder.synced}
    nodes = {number: _surviving_node(node, choose) for number, node in state.nodes if number in named}
    return DiskState(tuple(sorted(nodes.items())), tuple(sorted(folders.items())), state.time)


def _surviving_folder(folder: Folder, choose: Choose, split: bool) -> Folder:
    changes = folder.pending
    if split:
        changes = tuple((part,) for change in changes for part in change)
    survived = tuple(change for change in changes if choose(2))
    return Folder(tuple(sorted(_apply(dict(folder.synced), survived).items())))


def _surviving_node(node: Node, choose: Choose) -> Node:
    unsynced = b"".join(node.pending)
    if not unsynced:
        return replace(node, pending=(), poisoned=False)
    outcomes = _outcomes(unsynced)
    return replace(node, synced=node.synced + outcomes[choose(len(outcomes))], pending=(), poisoned=False)


@lru_cache(maxsize=256)
def _outcomes(unsynced: bytes) -> tuple[bytes, ...]:
    """What may be left of bytes that no sync has covered: none, all, cut off, or with one block spoilt."""
    outcomes = [b"", unsynced, unsynced[: len(unsynced) // 2], bytes(len(unsynced))]
    for start in range(0, len(unsynced), BLOCK_BYTES):
        end = min(start + BLOCK_BYTES, len(unsynced))
        outcomes.append(unsynced[:start])
        outcomes.append(unsynced[:start] + bytes(end - start) + unsynced[end:])
        outcomes.append(unsynced[:start] + b"\xa5" * (end - start) + unsynced[end:])
    return tuple(dict.fromkeys(outcomes))


def _apply(names: dict[str, int], changes: tuple[Change, ...]) -> dict[str, int]:
    for change in changes:
        for name, number in change:
            if number is None:
                names.pop(name, None)
            else:
                names[name] = number
    return names
