"""Pins: checkpoints that the user wants kept, whatever the keep policy says.

A pin is a small file beside the manifest. Its content, {"generation": 12}, is the generation of the
checkpoint it was made for. So it does not apply to another checkpoint that gets the same name later, and it
is harmless once its checkpoint is gone. It is not authenticated: somebody who can write into the folder can
remove the checkpoint itself.

A caller that makes or removes a pin holds the lock of the run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable

from resilient.errors import StorageError
from resilient.host.files import Files
from resilient.store import commit, layout
from resilient.store.entry import Entry
from resilient.store.patience import patiently

_LIMIT_BYTES = 4096


def pinned(files: Files, entries: Collection[Entry], names: Collection[str] | None = None) -> set[str]:
    """The names of the pinned ones among checkpoints of one folder; ``names`` are all in it, if known.

    Raises StorageError when the folder cannot be listed: no checkpoint that may be pinned may be removed.
    """
    if not entries:
        return set()
    if names is None:
        names = set(files.names(next(iter(entries)).directory))
    return {e.name for e in entries if layout.pin_of(e.name) in names and _is_for(files, e)}


def pin(files: Files, entry: Entry, token: str) -> None:
    """Pins a checkpoint, durably."""
    content = json.dumps({"generation": entry.generation}).encode()
    path = entry.directory / layout.pin_of(entry.name)
    commit.replace(files, path, token, lambda writer: writer.write(content))


def unpin(files: Files, entry: Entry) -> None:
    """Removes the pin of a checkpoint durably, if it has one."""
    with contextlib.suppress(FileNotFoundError):
        files.remove(entry.directory / layout.pin_of(entry.name))
    files.sync_directory(entry.directory)


def remove_stale(files: Files, entries: Iterable[Entry]) -> None:
    """Removes pins whose checkpoint is gone, in the folders of these entries."""
    for directory in {entry.directory for entry in entries}:
        names = set(files.names(directory))
        for name in names:
            stem = name.removesuffix(layout.PIN_SUFFIX)
            if name.endswith(layout.PIN_SUFFIX) and stem + layout.MANIFEST_SUFFIX not in names:
                with contextlib.suppress(FileNotFoundError):
                    files.remove(directory / name)


def _is_for(files: Files, entry: Entry) -> bool:
    """Whether a pin is for this very checkpoint. An unreadable one is: somebody put it there to keep it."""
    try:
        content = patiently(files.read, entry.directory / layout.pin_of(entry.name), _LIMIT_BYTES)
        generation = json.loads(content)["generation"]
    except FileNotFoundError:
        return False
    except (StorageError, ValueError, TypeError, KeyError):
        return True
    return bool(generation == entry.generation)
