"""Pins: checkpoints that the user wants kept, whatever the keep policy says.

A pin is a small file beside the manifest, with the generation of the checkpoint it was made for as its
content, {"generation": 12}. So it says nothing of another checkpoint that gets the same name later, and one
whose checkpoint is gone is harmless. It is no secret and proves nothing: whoever can write into the folder
can remove the checkpoint itself.

Whoever makes or removes one holds the lock of the run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence

from resilient.errors import StorageError
from resilient.host.files import Files
from resilient.store import commit, layout
from resilient.store.entry import Entry
from resilient.store.patience import patiently

_LIMIT_BYTES = 4096


def pinned(files: Files, entries: Collection[Entry]) -> set[str]:
    """The names of those checkpoints of one folder that are pinned.

    Raises StorageError where that cannot be told: what may be pinned must not be removed.
    """
    if not entries:
        return set()
    directory = next(iter(entries)).directory
    names = set(files.names(directory))
    return {e.name for e in entries if layout.pin_of(e.name) in names and _is_for(files, e)}


def respecting(
    files: Files, kept: Callable[[Sequence[Entry]], Collection[int]]
) -> Callable[[Sequence[Entry]], Collection[int]]:
    """The same decision of retention, with every pinned checkpoint kept, and not asked about."""

    def decide(entries: Sequence[Entry]) -> Collection[int]:
        held = pinned(files, entries)
        loose = [entry for entry in entries if entry.name not in held]
        return {e.generation for e in entries if e.name in held}.union(kept(loose))

    return decide


def pin(files: Files, entry: Entry, token: str) -> None:
    """Pins a checkpoint, durably."""
    content = json.dumps({"generation": entry.generation}).encode()
    path = entry.directory / layout.pin_of(entry.name)
    commit.replace(files, path, token, lambda writer: writer.write(content))


def unpin(files: Files, entry: Entry) -> None:
    """Takes the pin of a checkpoint away, durably; none there is fine."""
    with contextlib.suppress(FileNotFoundError):
        files.remove(entry.directory / layout.pin_of(entry.name))
    files.sync_directory(entry.directory)


def remove_stale(files: Files, entries: Iterable[Entry]) -> None:
    """Removes the pins of checkpoints that are gone from the folder of these."""
    for directory in {entry.directory for entry in entries}:
        names = set(files.names(directory))
        for name in names:
            stem = name.removesuffix(layout.PIN_SUFFIX)
            if name.endswith(layout.PIN_SUFFIX) and stem + layout.MANIFEST_SUFFIX not in names:
                with contextlib.suppress(FileNotFoundError):
                    files.remove(directory / name)


def _is_for(files: Files, entry: Entry) -> bool:
    """Whether a pin is for this very checkpoint. One that nobody can read is: it was put there to keep."""
    try:
        content = patiently(files.read, entry.directory / layout.pin_of(entry.name), _LIMIT_BYTES)
        generation = json.loads(content)["generation"]
    except FileNotFoundError:
        return False
    except (StorageError, ValueError, TypeError, KeyError):
        return True
    return bool(generation == entry.generation)
