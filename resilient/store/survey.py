"""What a folder of checkpoints holds: which manifests are authentic and ours, and beside their data.

A survey reads every manifest. Each save would cost the more the more checkpoints there are, so whoever holds
the lock of the run may go by the names (``survey_names``): what came or went since is seen and read, and what
was judged before and still has its name is taken for what it was. That is enough to name and number the next
checkpoint. It is not enough to remove one: before that, those that stay are looked at again (see ``Store``).
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

# A manifest that cannot be read now may be of a later generation than all that can, and what is committed
# meanwhile must be newer still. Each one that cannot be read may itself have been committed in such doubt.
_UNREAD_GENERATIONS = 2**20


@dataclass(frozen=True)
class Survey:
    """What the folder holds: checkpoints, newest first, manifests of ours that are none, and all names.

    ``highest_generation`` is no lower than that of any of them, also of those that could not be read.
    """

    entries: tuple[Entry, ...]
    failures: tuple[FileFailure, ...]
    highest_generation: int
    names: frozenset[str]


@dataclass(frozen=True)
class _Judgment:
    """A manifest as it was read: a checkpoint, or why it is none, and the generation that it claims.

    It holds as long as ``names`` are there. ``lasts`` is False where it may be another the next time: after
    an error of the disk, and for a file that is about to be set aside.
    """

    names: frozenset[str]
    claimed: int
    entry: Entry | None
    failures: tuple[FileFailure, ...] = ()
    lasts: bool = True


@dataclass(frozen=True)
class PlainRule:
    """Which manifests that no key vouches for count while there are keys: all of them, or the ``accepted``.

    ``accepted`` holds digests of manifests' files (``manifest.digest``) from the run's sealed record. A
    manifest binds its data file, so a digest vouches for both.
    """

    every: bool = False
    accepted: frozenset[str] = frozenset()

    def allows(self, digest: str) -> bool:
        """Whether the manifest with this digest counts, should it be unencrypted."""
        return self.every or digest in self.accepted


class RenamedError(ForeignError):
    """A checkpoint of ours under a name it was not committed under: perhaps somebody's copy of it."""


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
        """A checkpoint has gone."""
        self._decoded.pop(entry.digest, None)
        self._claimed.pop(entry.digest, None)

    def survey(self) -> Survey:
        """What the folder holds now. Raises StorageError when it cannot be listed."""
        self._judged = {}
        return self.survey_names()

    def survey_names(self) -> Survey:
        """What the folder holds by its names: reads only the manifests that were not judged before.

        Only for whoever holds the lock of the run. Raises StorageError when the folder cannot be listed.
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
            raise RenamedError(f"is {decoded.file_name} under another name", hint="give it its name back")
        entry = Entry(self._directory, decoded, manifest.digest(data))
        try:
            size_bytes = patiently(self._files.identity, entry.path).size_bytes
        except FileNotFoundError as error:
            raise CorruptError("its data file is missing") from error
        if size_bytes != decoded.file_bytes:
            raise CorruptError(f"its data file has {size_bytes} bytes instead of {decoded.file_bytes}")
        return entry

    def read_manifest(self, path: Path) -> bytes:
        """A manifest's bytes. Raises CorruptError for one that is missing or cannot be one."""
        try:
            return patiently(self._files.read, path, manifest.LIMIT_BYTES)
        except FileNotFoundError as error:
            raise CorruptError("the manifest is missing") from error
        except StorageError as error:
            if error.errno == errno.EFBIG:
                raise CorruptError("the manifest is far too large") from error
            raise

    def decode(self, data: bytes) -> Manifest:
        """An authentic manifest of ours out of its bytes. Raises CheckpointError."""
        # The same bytes are the same manifest: a folder of thousands is authenticated once, not at each
        # commit.
        digest = manifest.digest(data)
        if digest not in self._decoded:
            allowed = self._plain.allows(digest)
            decoded = manifest.decode(data, self._keys, self._owner, allow_plain=allowed)
            if decoded.key_id is None and not allowed:
                # Also where no key is at hand: the run is encrypted all the same.
                raise manifest.unproven()
            self._decoded[digest] = decoded
        return self._decoded[digest]

    def _explain(self, name: str, error: ResilientError) -> Iterator[FileFailure]:
        """Whether a manifest that is no checkpoint of ours concerns us, and how."""
        data_name = layout.data_of(name)
        if isinstance(error, ForeignError):
            yield FileFailure(data_name, error, ours=isinstance(error, RenamedError))
            return
        parsed = layout.parse_checkpoint(data_name)
        # Other tools have files called .manifest too, and other ranks may share the folder.
        if parsed is not None and parsed.rank == self._owner.rank:
            yield FileFailure(data_name, error)


def claims(files: Files, directory: Path, data_name: str) -> Mapping[str, Any] | None:
    """What the manifest of a file that is no usable checkpoint says, without any proof.

    Nothing where it cannot be read; None where it is there no more.
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
    # A forged claim is cut off; what is authentic counts in full.
    claims = [0, *(judgment.claimed for judgment in judgments), *(entry.generation for entry in entries)]
    unread = sum(isinstance(failure.error, StorageError) for failure in failures)
    highest = max(claims) + unread * _UNREAD_GENERATIONS
    return Survey(tuple(entries), tuple(failures), highest, names)
