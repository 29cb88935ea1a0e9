"""Surveys a folder of checkpoints: which manifests are authentic, ours, and beside their data.

A survey reads every manifest, so its cost grows with the number of checkpoints. The holder of the run's lock
may use ``survey_names`` at each save instead: it reads only manifests that are new, and trusts its earlier
judgment of those whose names are still there. That is enough to name and number the next checkpoint. It is
not enough to remove one: before that, the store checks those that stay again (see ``Store``).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resilient.errors import (
    CheckpointError,
    CorruptError,
    ForeignError,
    ResilientError,
    StorageError,
    WrongKeyError,
)
from resilient.host.files import Files
from resilient.store import layout, manifest
from resilient.store.entry import Entry, FileFailure
from resilient.store.manifest import Manifest, Owner
from resilient.store.patience import patiently

# An unreadable manifest may have a later generation than all readable ones, and the next commit must be newer
# still. The margin is large because each unreadable one may itself have been committed with such a margin.
_UNREAD_GENERATIONS = 2**20


@dataclass(frozen=True)
class Survey:
    """The content of the folder: checkpoints, newest first, unusable manifests of ours, and all names.

    ``highest_generation`` is at least that of each of them, the unreadable ones included.
    """

    entries: tuple[Entry, ...]
    failures: tuple[FileFailure, ...]
    highest_generation: int
    names: frozenset[str]


@dataclass(frozen=True)
class _Judgment:
    """The verdict on a manifest: its checkpoint, or why it is none, and the generation that it claims.

    It holds as long as the files ``names`` exist. ``lasts`` is False when the next reading may differ: after
    a disk error, and for a file that is about to be set aside.
    """

    names: frozenset[str]
    claimed: int
    entry: Entry | None
    failures: tuple[FileFailure, ...] = ()
    lasts: bool = True


@dataclass(frozen=True)
class PlainRule:
    """Which unencrypted manifests count: all of them with ``every``, otherwise the ``accepted`` ones.

    ``accepted`` holds digests of manifests' files (``manifest.digest``) from the run's sealed record. A
    manifest binds its data file, so a digest vouches for both.
    """

    every: bool = False
    accepted: frozenset[str] = frozenset()

    def allows(self, digest: str) -> bool:
        """Whether the manifest with this digest counts if it is unencrypted."""
        return self.every or digest in self.accepted


class RenamedError(ForeignError):
    """A checkpoint of ours under another name than at its commit: perhaps a copy."""


class Surveyor:
    """Reads the manifests of one folder, with the keys of one owner."""

    def __init__(
        self,
        directory: Path,
        files: Files,
        keys: tuple[bytes, ...],
        owner: Owner,
        plain: PlainRule,
    ) -> None:
        self._directory = directory
        self._files = files
        self._keys = keys
        self._owner = owner
        self._plain = plain
        self._decoded: dict[str, Manifest] = {}
        self._claimed: dict[str, int] = {}
        self._judged: dict[str, _Judgment] = {}

    def forget(self, entry: Entry) -> None:
        """Drops what is cached about a checkpoint that was removed."""
        self._decoded.pop(entry.digest, None)
        self._claimed.pop(entry.digest, None)

    def survey(self) -> Survey:
        """Surveys the folder afresh. Raises StorageError when it cannot be listed."""
        self._judged = {}
        return self.survey_names()

    def survey_names(self) -> Survey:
        """Surveys the folder by its names: reads only the manifests that were not judged before.

        The caller holds the lock of the run. Raises StorageError when the folder cannot be listed.
        """
        listed = self._files.names(self._directory)
        names = frozenset(listed)
        judged = {name: known for name, known in self._judged.items() if known.names <= names}
        fresh = [name for name in listed if name.endswith(layout.MANIFEST_SUFFIX) and name not in judged]
        found = {name: self._judge(name) for name in fresh if not layout.is_temporary(name)}
        self._judged = judged | {name: judgment for name, judgment in found.items() if judgment.lasts}
        return _summary([*judged.values(), *found.values()], names)

    def _judge(self, name: str) -> _Judgment:
        claimed = 0
        try:
            data = self.read_manifest(self._directory / name)
            claimed = self._claimed_generation(data)
            entry = self._read_entry(name, data)
            return _Judgment(frozenset((name, entry.name)), claimed, entry)
        except (CheckpointError, StorageError) as error:
            failures = tuple(self._explain(name, error))
            lasts = isinstance(error, (ForeignError, WrongKeyError))
            return _Judgment(frozenset((name,)), claimed, None, failures, lasts)

    def _claimed_generation(self, data: bytes) -> int:
        digest = manifest.digest(data)
        if digest not in self._claimed:
            self._claimed[digest] = manifest.claimed_generation(data)
        return self._claimed[digest]

    def _read_entry(self, name: str, data: bytes) -> Entry:
        decoded = self.decode(data)
        if layout.manifest_of(decoded.file_name) != name:
            raise RenamedError(f"is {decoded.file_name} under another name", hint="rename it back")
        entry = Entry(self._directory, decoded, manifest.digest(data))
        try:
            size_bytes = patiently(self._files.identity, entry.path).size_bytes
        except FileNotFoundError as error:
            raise CorruptError("its data file is missing") from error
        if size_bytes != decoded.file_bytes:
            raise CorruptError(f"its data file has {size_bytes} bytes instead of {decoded.file_bytes}")
        return entry

    def read_manifest(self, path: Path) -> bytes:
        """A manifest's bytes. Raises CorruptError when it is missing or too large."""
        try:
            return patiently(self._files.read, path, manifest.LIMIT_BYTES)
        except FileNotFoundError as error:
            raise CorruptError("the manifest is missing") from error
        except StorageError as error:
            if error.errno == errno.EFBIG:
                raise CorruptError("the manifest is far too large") from error
            raise

    def decode(self, data: bytes) -> Manifest:
        """Decodes the bytes of an authentic manifest of ours. Raises CheckpointError."""
        # Cached by content: a folder of thousands is authenticated once, not at each commit.
        digest = manifest.digest(data)
        if digest not in self._decoded:
            allowed = self._plain.allows(digest)
            decoded = manifest.decode(data, self._keys, self._owner, allow_plain=allowed)
            if decoded.key_id is None and not allowed:
                # Even without a key at hand, the run is encrypted.
                raise manifest.unproven()
            self._decoded[digest] = decoded
        return self._decoded[digest]

    def _explain(self, name: str, error: ResilientError) -> Iterator[FileFailure]:
        """The failure to report for an unusable manifest; none when it does not concern us."""
        data_name = layout.data_of(name)
        if isinstance(error, ForeignError):
            yield FileFailure(data_name, error, ours=isinstance(error, RenamedError))
            return
        parsed = layout.parse_checkpoint(data_name)
        # Other tools use the ending .manifest too, and other ranks may share the folder.
        if parsed is not None and parsed.rank == self._owner.rank:
            yield FileFailure(data_name, error)


def claims(files: Files, directory: Path, data_name: str) -> Mapping[str, Any] | None:
    """The unproven content of the manifest of an unusable checkpoint.

    Empty when it cannot be read; None when it no longer exists.
    """
    try:
        data = patiently(files.read, directory / layout.manifest_of(data_name), manifest.LIMIT_BYTES)
    except FileNotFoundError:
        return None
    except StorageError:
        return {}
    return manifest.claims(data)


def _summary(judgments: Sequence[_Judgment], names: frozenset[str]) -> Survey:
    entries = [judgment.entry for judgment in judgments if judgment.entry is not None]
    entries.sort(key=lambda entry: (entry.generation, entry.step, entry.name), reverse=True)
    failures = [failure for judgment in judgments for failure in judgment.failures]
    failures.sort(key=lambda failure: failure.name)
    # ``claimed_generation`` limits forged claims; authentic generations count in full.
    claims = [0, *(judgment.claimed for judgment in judgments), *(entry.generation for entry in entries)]
    unread = sum(isinstance(failure.error, StorageError) for failure in failures)
    highest = max(claims) + unread * _UNREAD_GENERATIONS
    return Survey(tuple(entries), tuple(failures), highest, names)
