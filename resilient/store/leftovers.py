"""Removes the files that dead writers left in a folder of checkpoints.

Temporary names are ours alone. A data file without a manifest is ours exactly when an authentic temporary
manifest names it and its bytes are those that the manifest binds (see ``commit``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from resilient.codec.tensors import skip_tensor
from resilient.errors import CheckpointError, CorruptError, StorageError
from resilient.host.files import Files
from resilient.store import commit as sequence
from resilient.store import layout, manifest
from resilient.store.entry import Entry, FileFailure
from resilient.store.sealed import read_sealed
from resilient.store.survey import Surveyor


class Leftovers:
    """The temporary files, and the uncommitted or half removed data files, in one folder."""

    def __init__(self, directory: Path, files: Files, surveyor: Surveyor, keys: tuple[bytes, ...]) -> None:
        self._directory = directory
        self._files = files
        self._surveyor = surveyor
        self._keys = keys

    def remove(self) -> tuple[tuple[str, ...], tuple[FileFailure, ...]]:
        """Removes them all; returns the names removed, and the failures.

        The caller holds the lock of the run. Raises StorageError when the folder cannot be listed.
        """
        names = set(self._files.names(self._directory))
        temporary = sorted(filter(layout.is_temporary, names))
        try:
            if temporary:
                # A writer killed before its sync leaves names that a power loss can still revert. No manifest
                # may return without its data, and no data without the manifest that names it.
                self._files.sync_directory(self._directory)
        except StorageError as error:
            return (), (FileFailure(self._directory.name, error, ours=False),)
        removed: list[str] = []
        failures: list[FileFailure] = []
        for name in temporary:
            try:
                removed.extend(self._remove(name, names))
            except (CheckpointError, StorageError) as error:
                failures.append(FileFailure(name, error, ours=False))
        return tuple(removed), tuple(failures)

    def _remove(self, name: str, names: Collection[str]) -> Iterator[str]:
        """Removes a temporary file; before a manifest, the data file that it names as ours."""
        path = self._directory / name
        owned = self._uncommitted_data(path, names)
        if owned is not None:
            sequence.finish_removal(self._files, self._directory / owned, path)
            yield owned
        else:
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(path)
        yield name

    def _uncommitted_data(self, path: Path, names: Collection[str]) -> str | None:
        """The data file that a temporary manifest names as ours, if it exists and is not committed."""
        final = layout.final_of(path.name)
        if not final.endswith(layout.MANIFEST_SUFFIX):
            return None
        try:
            data = self._surveyor.read_manifest(path)
            entry = Entry(self._directory, self._surveyor.decode(data), manifest.digest(data))
            if final in names or entry.name not in names or layout.manifest_of(entry.name) != final:
                return None
            read_sealed(self._files, entry, self._keys, skip_tensor)
        except CorruptError:
            # A torn manifest names nothing yet. A data file that differs from what the manifest binds was
            # put there by another program: it stays.
            return None
        return entry.name
