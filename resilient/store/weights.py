"""Weights files: networks alone, sealed like checkpoints, for stock MindSpore to load.

They have no manifest, and no run resumes from them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from resilient.codec.tensors import Record
from resilient.config import Sealing
from resilient.errors import StorageError
from resilient.host.entropy import Entropy
from resilient.host.files import Files
from resilient.store import commit as sequence
from resilient.store import layout
from resilient.store.entry import FileFailure
from resilient.store.sealed import write_sealed


def write_weights(
    files: Files,
    path: Path,
    records: Iterable[Record],
    sealing: Sealing,
    entropy: Entropy,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Writes a weights file for stock's ``load_checkpoint``, durably, replacing one of the same name.

    A reader sees the whole old file or the whole new one. ``check`` is as in ``entry.Draft``: an error of
    it leaves the old file in place.
    """
    files.make_directory(path.parent)
    token = entropy.token(layout.TOKEN_BYTES).hex()
    sequence.replace(files, path, token, partial(write_sealed, sealing, entropy, records, b""), check)


def prune_weights(
    files: Files, directory: Path, ours: Callable[[str], bool], kept: Collection[str]
) -> tuple[FileFailure, ...]:
    """Removes the files of a folder whose names are ``ours`` and not ``kept``; returns the failures."""
    failures = []
    for name in files.names(directory):
        if ours(name) and name not in kept:
            try:
                files.remove(directory / name)
            except FileNotFoundError:
                continue
            except StorageError as error:
                failures.append(FileFailure(name, error))
    return tuple(failures)


def remove_temporaries(files: Files, directory: Path) -> tuple[FileFailure, ...]:
    """Removes the temporary files of dead writers. The caller holds the lock of the run."""
    return prune_weights(files, directory, layout.is_temporary, ())
