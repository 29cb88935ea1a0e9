"""The store: the checkpoints of one rank of one run, in one folder.

What is a checkpoint: a manifest that is authentic and ours, beside the data file it names, with the size it
binds. Whether the data is intact too is known once every byte has been read; ``verify`` and ``load`` do
that.

Rules that hold for every operation:

* Order is by generation. Neither file times nor wall clocks decide anything.
* Only CorruptError moves files to the quarantine. A wrong key, a disk error, or a file of another run leaves
  everything where it is and is reported.
* Files without a manifest of ours are not ours. Stock's checkpoints in the same folder are never touched;
  their names count as taken.
* A checkpoint is removed only when those that stay have been read in full, or were written by this process,
  and their names are durable.
* Whoever calls ``recover``, ``commit`` or ``prune`` holds the lock of the run: temporary files found then
  belong to writers that are dead. Where a checkpoint that was being committed or removed leaves traces, and
  why each of them can be told from other people's files, is in ``commit``.

Reads are tried again when the error may pass (a signal, a stale NFS handle, a flaky disk); writes and syncs
never.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from resilient.codec import container
from resilient.codec.cipher import Cipher
from resilient.codec.container import Record, Sink
from resilient.codec.keys import key_id
from resilient.config import Sealing
from resilient.errors import (
    CheckpointError,
    CorruptError,
    ForeignError,
    ResilientError,
    StorageError,
    UnusableError,
    WrongKeyError,
)
from resilient.host.clock import Clock
from resilient.host.entropy import Entropy
from resilient.host.files import Files, Identity, Reader, Writer
from resilient.store import commit as sequence
from resilient.store import layout, manifest
from resilient.store.commit import Place
from resilient.store.manifest import Manifest, Owner

T = TypeVar("T")

_MAY_PASS = {errno.EINTR, errno.EAGAIN, errno.ESTALE, errno.EIO}
_META_LIMIT_BYTES = 64 * 1024
_REASON_SUFFIX = ".reason.txt"
_COPY_MARK = "~"  # a prefix may hold it too: then a temporary is taken for somebody else's, and stays
_REASON_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Draft:
    """A training state that is to become a checkpoint.

    ``step`` counts over the run, ``step_in_epoch`` within ``epoch``. ``records`` and ``extra`` are its
    content (see ``codec.container``), ``reason`` why it is made ("schedule", "end", "exception", "signal"),
    ``failure`` whether that is a failure of the run. ``info`` is a small JSON object for the manifest.
    """

    prefix: str
    epoch: int
    step_in_epoch: int
    step: int
    records: Iterable[Record]
    extra: bytes
    reason: str
    failure: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A checkpoint: its manifest, the digest of that manifest's file, and its folder."""

    directory: Path
    manifest: Manifest
    digest: str

    @property
    def generation(self) -> int:
        return self.manifest.generation

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def created(self) -> float:
        return self.manifest.created

    @property
    def name(self) -> str:
        return self.manifest.file_name

    @property
    def path(self) -> Path:
        return self.directory / self.name

    @property
    def manifest_path(self) -> Path:
        return self.directory / layout.manifest_of(self.name)


@dataclass(frozen=True)
class Failure:
    """A file that could not be used, read or removed, and why.

    ``ours`` is False for what belongs to another run: it is no reason to refuse a fresh start.
    """

    name: str
    error: ResilientError
    ours: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.error}"


@dataclass(frozen=True)
class Recovery:
    """What ``recover`` found: checkpoints (newest first), what it set aside, removed, and could not
    handle."""

    entries: tuple[Entry, ...]
    quarantined: tuple[Failure, ...] = ()
    removed: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read in full, with its ``extra``, and the newer ones that could not be used."""

    entry: Entry
    extra: bytes
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """What ``prune`` removed, what it set aside, and what it could not remove."""

    removed: tuple[Entry, ...] = ()
    quarantined: tuple[Failure, ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class _Survey:
    """What the folder holds: checkpoints, newest first, and manifests of ours that are none."""

    entries: tuple[Entry, ...]
    failures: tuple[Failure, ...]
    highest_generation: int


class _RenamedError(ForeignError):
    """A checkpoint of ours under a name it was not committed under: perhaps somebody's copy of it."""


@dataclass(frozen=True)
class _Written:
    """What writing a data file yields for its manifest."""

    file_bytes: int
    plain_bytes: int
    tags: tuple[bytes, ...]


class Store:
    """The checkpoints of one rank of one run.

    ``meta_error`` is why meta.json, which stock's tools read, could not be brought up to date; the
    checkpoints themselves do not depend on it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quarantine: Path,
        files: Files,
        clock: Clock,
        entropy: Entropy,
        sealing: Sealing,
        run_id: str,
        rank: int = 0,
        world_size: int = 1,
        allow_plain: bool = False,
    ) -> None:
        self._directory = directory
        self._quarantine = quarantine
        self._files = files
        self._clock = clock
        self._entropy = entropy
        self._sealing = sealing
        self._owner = Owner(run_id, rank)
        self._world_size = world_size
        self._allow_plain = allow_plain or sealing.key is None
        self._keys = tuple(key for key in (sealing.key, *sealing.old_keys) if key is not None)
        self._verified: dict[str, tuple[Identity, Identity]] = {}
        self._unacknowledged: set[str] = set()
        self._decoded: dict[str, Manifest] = {}
        self._highest_generation = 0
        self.meta_error: StorageError | None = None

    @property
    def directory(self) -> Path:
        return self._directory

    def entries(self) -> list[Entry]:
        """The checkpoints, newest first: manifest authentic, data file there with the right size.

        Raises StorageError when the folder cannot be listed: that is not the same as being empty.
        """
        return list(self._survey().entries)

    def recover(self) -> Recovery:
        """Cleans up after writers that died, and sets aside what is corrupt. Idempotent.

        Data is checked for its size only; ``load_newest`` and ``prune`` read what they rely on. Raises
        StorageError when the folder cannot be listed; whatever else fails is reported in the result.
        """
        removed, failures = self._remove_leftovers()
        survey = self._survey()
        quarantined, left = _split_corrupt(self._set_aside_corrupt(survey.failures))
        self._refresh_meta(survey.entries)
        return Recovery(survey.entries, quarantined, removed, (*failures, *left))

    def commit(self, draft: Draft) -> Entry:
        """Makes a checkpoint. When this returns, it survives any crash.

        Raises StorageError when it could not be made durable; earlier checkpoints are as they were.
        """
        self._files.make_directory(self._directory)
        survey = self._survey()
        generation = self._next_generation(survey)
        parent = survey.entries[0].digest if survey.entries else ""
        place = self._free_place(draft)
        self._unacknowledged.add(place.data_name)
        data = sequence.commit(
            self._files,
            place,
            partial(_write_sealed, self._sealing, self._entropy, draft),
            lambda written: self._make_manifest(draft, place, generation, parent, written),
        )
        self._unacknowledged.discard(place.data_name)
        entry = Entry(self._directory, self._decode(data), manifest.digest(data))
        self._remember(entry)
        self._refresh_meta((entry,))
        return entry

    def verify(self, entry: Entry) -> None:
        """Reads every byte of a checkpoint.

        Raises CorruptError, WrongKeyError or StorageError. Moves nothing.
        """
        self.load(entry, _skip)

    def load(self, entry: Entry, sink: Sink) -> bytes:
        """Reads a checkpoint into what ``sink`` gives (see ``container.decode``) and returns its ``extra``.

        Every block is verified before its content reaches the sink's memory, but the whole is only known to
        be right at the end: when this raises (CorruptError, WrongKeyError, StorageError), what the sink
        has received must be thrown away.
        """
        # The identities from before the reading: a file that changes meanwhile does not count as verified.
        identities = self._identities(entry)
        extra = self._read_data(entry, sink)
        self._verified[entry.name] = identities
        return extra

    def load_newest(self, make_sink: Callable[[Entry], Sink]) -> Loaded | None:
        """Reads the newest checkpoint that is intact; None when there has never been one.

        ``make_sink`` is called afresh for each candidate. Corrupt ones are set aside, others that cannot be
        used are left alone; both are in the result. Raises UnusableError when checkpoints of this run
        exist, here or in the quarantine, and none can be used.
        """
        survey = self._survey()
        failures = self._set_aside_corrupt(survey.failures)
        for entry in survey.entries:
            try:
                return Loaded(entry, self.load(entry, make_sink(entry)), tuple(failures))
            except CorruptError as error:
                failures.append(self._set_aside(Failure(entry.name, error)))
            except (WrongKeyError, StorageError) as error:
                failures.append(Failure(entry.name, error))
        self._refuse_to_start_over(failures)
        return None

    def prune(self, kept: Callable[[Sequence[Entry]], Collection[int]]) -> Pruned:
        """Removes the checkpoints whose generation is not in ``kept(valid checkpoints)``.

        Before anything is removed, each one that stays has been verified; one that turns out corrupt is set
        aside, one that cannot be read does not count and stays. Failures are reported, not raised.
        """
        survey = self._survey()
        failures = self._set_aside_corrupt(survey.failures)
        surplus = self._surplus(survey.entries, kept, failures)
        removed = tuple(self._remove_all(surplus, failures))
        self._refresh_meta(self._survey().entries)
        return Pruned(removed, *_split_corrupt(failures))

    # Reading the folder

    def _survey(self) -> _Survey:
        entries: list[Entry] = []
        failures: list[Failure] = []
        claims = [0]
        for name in self._files.names(self._directory):
            if not name.endswith(layout.MANIFEST_SUFFIX) or layout.is_temporary(name):
                continue
            try:
                data = self._read_manifest(self._directory / name)
                claims.append(manifest.claimed_generation(data))
                entries.append(self._read_entry(name, data))
            except (CheckpointError, StorageError) as error:
                failures.extend(self._judge(name, error))
        entries.sort(key=lambda entry: (entry.generation, entry.step, entry.name), reverse=True)
        return _Survey(tuple(entries), tuple(failures), max(claims))

    def _read_entry(self, name: str, data: bytes) -> Entry:
        decoded = self._decode(data)
        if layout.manifest_of(decoded.file_name) != name:
            raise _RenamedError(f"is {decoded.file_name} under another name", hint="give it its name back")
        entry = Entry(self._directory, decoded, manifest.digest(data))
        try:
            size_bytes = _patiently(self._files.identity, entry.path).size_bytes
        except FileNotFoundError as error:
            raise CorruptError("its data file is missing") from error
        if size_bytes != decoded.file_bytes:
            raise CorruptError(f"its data file has {size_bytes} bytes instead of {decoded.file_bytes}")
        return entry

    def _read_manifest(self, path: Path) -> bytes:
        try:
            return _patiently(self._files.read, path, manifest.LIMIT_BYTES)
        except FileNotFoundError as error:
            raise CorruptError("the manifest is missing") from error
        except StorageError as error:
            if error.errno == errno.EFBIG:
                raise CorruptError("the manifest is far too large") from error
            raise

    def _decode(self, data: bytes) -> Manifest:
        # The same bytes are the same manifest: a folder of thousands is authenticated once, not at each
        # commit.
        digest = manifest.digest(data)
        if digest not in self._decoded:
            decoded = manifest.decode(data, self._keys, self._owner, allow_plain=self._allow_plain)
            self._decoded[digest] = decoded
        return self._decoded[digest]

    def _judge(self, name: str, error: ResilientError) -> Iterator[Failure]:
        """Whether a manifest that is no checkpoint of ours concerns us, and how."""
        data_name = layout.data_of(name)
        if isinstance(error, ForeignError):
            yield Failure(data_name, error, ours=isinstance(error, _RenamedError))
            return
        parsed = layout.parse_checkpoint(data_name)
        # Other tools have files called .manifest too, and other ranks may share the folder.
        if parsed is not None and parsed.rank == self._owner.rank:
            yield Failure(data_name, error)

    def _identities(self, entry: Entry) -> tuple[Identity, Identity]:
        paths = entry.path, entry.manifest_path
        try:
            data, made = (_patiently(self._files.identity, path) for path in paths)
        except FileNotFoundError as error:
            raise CorruptError("the data file or its manifest is missing") from error
        return data, made

    def _read_data(self, entry: Entry, sink: Sink) -> bytes:
        cipher = Cipher(entry.manifest.mode, self._key_of(entry), self._entropy)
        try:
            reader = _patiently(self._files.open, entry.path)
        except FileNotFoundError as error:
            raise CorruptError("the data file is missing") from error
        try:
            blocks = cipher.open(_PatientReader(reader), entry.manifest.tags)
            return container.decode(blocks, sink, entry.manifest.plain_bytes)
        finally:
            reader.close()

    def _key_of(self, entry: Entry) -> bytes | None:
        wanted = entry.manifest.key_id
        if wanted is None:
            return None
        for key in self._keys:
            if key_id(key) == wanted:
                return key
        raise WrongKeyError(f"{entry.name} is sealed with another key", hint="give the key it was made with")

    # Committing

    def _next_generation(self, survey: _Survey) -> int:
        """One more than every generation that was ever seen here, those we cannot open included."""
        self._highest_generation = max(self._highest_generation, survey.highest_generation) + 1
        return self._highest_generation

    def _free_place(self, draft: Draft) -> Place:
        wanted = layout.CheckpointName(
            prefix=draft.prefix,
            rank=self._owner.rank,
            epoch=draft.epoch,
            step_in_epoch=draft.step_in_epoch,
            failure=draft.failure,
        )
        free = layout.free_name(wanted, set(self._files.names(self._directory)))
        return Place(self._directory, free.data, self._token())

    def _token(self) -> str:
        return self._entropy.token(layout.TOKEN_BYTES).hex()

    def _make_manifest(
        self, draft: Draft, place: Place, generation: int, parent: str, written: _Written
    ) -> bytes:
        made = Manifest(
            run_id=self._owner.run_id,
            rank=self._owner.rank,
            world_size=self._world_size,
            step=draft.step,
            epoch=draft.epoch,
            step_in_epoch=draft.step_in_epoch,
            generation=generation,
            parent=parent,
            file_name=place.data_name,
            file_bytes=written.file_bytes,
            plain_bytes=written.plain_bytes,
            mode=self._sealing.mode,
            key_id=key_id(self._sealing.key) if self._sealing.key is not None else None,
            tags=written.tags,
            prefix=draft.prefix,
            reason=draft.reason,
            failure=draft.failure,
            created=self._clock.now(),
            info=draft.info,
        )
        data = manifest.encode(made, self._sealing.key)
        # Before it is committed: what we could not read back must not become the newest checkpoint.
        self._decode(data)
        return data

    def _remember(self, entry: Entry) -> None:
        """Counts a checkpoint as verified: this process has just written it."""
        try:
            self._verified[entry.name] = self._identities(entry)
        except (StorageError, CorruptError):
            self._verified.pop(entry.name, None)

    # Retention

    def _surplus(
        self,
        entries: Sequence[Entry],
        kept: Callable[[Sequence[Entry]], Collection[int]],
        failures: list[Failure],
    ) -> list[Entry]:
        """The checkpoints that may go. Verifies those that stay, until all of them are known to be intact."""
        valid = [entry for entry in entries if entry.name not in self._unacknowledged]
        while valid:
            staying = {valid[0].generation, *kept(valid)}
            surplus = [entry for entry in valid if entry.generation not in staying]
            unread = [e for e in valid if e.generation in staying and not self._is_verified(e)]
            if not surplus or not unread:
                return surplus
            failure = self._try_to_verify(unread[0])
            if failure is not None:
                failures.append(failure)
                valid.remove(unread[0])
        return []

    def _is_verified(self, entry: Entry) -> bool:
        try:
            return self._verified.get(entry.name) == self._identities(entry)
        except (StorageError, CorruptError):
            return False

    def _try_to_verify(self, entry: Entry) -> Failure | None:
        try:
            self.verify(entry)
        except CorruptError as error:
            return self._set_aside(Failure(entry.name, error))
        except (WrongKeyError, StorageError) as error:
            return Failure(entry.name, error)
        return None

    def _remove_all(self, surplus: Sequence[Entry], failures: list[Failure]) -> Iterator[Entry]:
        """Removes checkpoints, the oldest first."""
        if not surplus:
            return
        try:
            # A writer killed between the last rename and its sync leaves a name that is not durable yet.
            self._files.sync_directory(self._directory)
        except StorageError as error:
            failures.append(Failure(self._directory.name, error))
            return
        for entry in reversed(surplus):
            try:
                sequence.remove(self._files, Place(self._directory, entry.name, self._token()))
                self._decoded.pop(entry.digest, None)
                self._verified.pop(entry.name, None)
                yield entry
            except StorageError as error:
                failures.append(Failure(entry.name, error))
            except FileNotFoundError:
                continue

    # Cleaning up

    def _remove_leftovers(self) -> tuple[tuple[str, ...], tuple[Failure, ...]]:
        names = set(self._files.names(self._directory))
        removed: list[str] = []
        failures: list[Failure] = []
        for name in sorted(filter(layout.is_temporary, names)):
            try:
                removed.extend(self._remove_leftover(name, names))
            except (CheckpointError, StorageError) as error:
                failures.append(Failure(name, error, ours=False))
        failures.extend(prune_weights(self._files, self._quarantine, self._is_unfinished_reason, ()))
        return tuple(removed), tuple(failures)

    def _is_unfinished_reason(self, name: str) -> bool:
        """Whether a name in the quarantine is a temporary of ours; other ranks, alive, write there too."""
        if not layout.is_temporary(name):
            return False
        stem = layout.final_of(name).removesuffix(_REASON_SUFFIX)
        parsed = layout.parse_checkpoint(stem.split(_COPY_MARK)[0] + layout.DATA_SUFFIX)
        return parsed is not None and parsed.rank == self._owner.rank

    def _remove_leftover(self, name: str, names: Collection[str]) -> Iterator[str]:
        """Removes a temporary file; when it is a manifest, the data file that it names as ours first."""
        path = self._directory / name
        owned = self._uncommitted_data(path, names)
        if owned is not None:
            sequence.finish_removal(self._files, self._directory / owned, path)
            yield owned
        else:
            self._files.remove(path)
        yield name

    def _uncommitted_data(self, path: Path, names: Collection[str]) -> str | None:
        """The data file that a temporary manifest names as ours, if it is there and not committed."""
        final = layout.final_of(path.name)
        if not final.endswith(layout.MANIFEST_SUFFIX):
            return None
        try:
            data = self._read_manifest(path)
            entry = Entry(self._directory, self._decode(data), manifest.digest(data))
            if final in names or entry.name not in names or layout.manifest_of(entry.name) != final:
                return None
            self._read_data(entry, _skip)
        except CorruptError:
            # A torn manifest names nothing yet. And a file that is not what the manifest binds was put
            # there by somebody else since: it is theirs.
            return None
        return entry.name

    # Quarantine

    def _set_aside_corrupt(self, found: Sequence[Failure]) -> list[Failure]:
        return [self._set_aside(f) if isinstance(f.error, CorruptError) else f for f in found]

    def _set_aside(self, failure: Failure) -> Failure:
        """Moves a corrupt checkpoint to the quarantine. The result tells when that is impossible."""
        try:
            self._move_to_quarantine(failure)
        except StorageError as error:
            message = f"is corrupt ({failure.error}) and cannot be set aside: {error}"
            return Failure(failure.name, StorageError(message, errno=error.errno))
        return failure

    def _move_to_quarantine(self, failure: Failure) -> None:
        self._files.make_directory(self._quarantine)
        stem = self._free_stem(failure.name)
        # The reason first: whatever lies in the quarantine has one, also after a crash in the middle. Then
        # the data: a manifest left alone is found and moved the next time, data left alone would not be.
        reason = self._quarantine / f"{stem}{_REASON_SUFFIX}"
        text = _reason(self._owner, failure).encode()
        sequence.replace(self._files, reason, self._token(), lambda writer: writer.write(text))
        self._move(failure.name, stem + layout.DATA_SUFFIX)
        self._move(layout.manifest_of(failure.name), stem + layout.MANIFEST_SUFFIX)
        self._verified.pop(failure.name, None)

    def _move(self, name: str, name_there: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rename(self._directory / name, self._quarantine / name_there)
        # The new name first, so that a crash between the two never leaves the file without any.
        self._files.sync_directory(self._quarantine)
        self._files.sync_directory(self._directory)

    def _free_stem(self, data_name: str) -> str:
        """A stem under which nothing lies in the quarantine yet: nothing there is ever replaced."""
        taken = set(self._files.names(self._quarantine))
        stem = data_name.removesuffix(layout.DATA_SUFFIX)
        stems = chain([stem], (f"{stem}{_COPY_MARK}{number}" for number in count(1)))
        suffixes = layout.DATA_SUFFIX, layout.MANIFEST_SUFFIX, _REASON_SUFFIX
        return next(free for free in stems if not taken.intersection(free + suffix for suffix in suffixes))

    def _refuse_to_start_over(self, failures: Sequence[Failure]) -> None:
        """Raises UnusableError when this run has checkpoints, and be it in the quarantine."""
        ours = [str(failure) for failure in failures if failure.ours] or self._quarantined()
        if not ours:
            return
        locked = any(isinstance(failure.error, WrongKeyError) for failure in failures)
        hint = "give the key they were made with" if locked else "start anew with --fresh, or restore a copy"
        raise UnusableError("no checkpoint of this run can be used: " + "; ".join(ours), hint=hint)

    def _quarantined(self) -> list[str]:
        """What was set aside of this run and rank, each with its reason."""
        found = []
        for name in self._files.names(self._quarantine):
            if name.endswith(_REASON_SUFFIX) and not layout.is_temporary(name):
                text = self._read_reason(self._quarantine / name)
                if text.startswith(_reason_heading(self._owner)):
                    found.append(f"{name.removesuffix(_REASON_SUFFIX)} in the quarantine")
        return found

    def _read_reason(self, path: Path) -> str:
        try:
            return self._files.read(path, _REASON_LIMIT_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    # meta.json

    def _refresh_meta(self, entries: Sequence[Entry]) -> None:
        """Makes meta.json describe the newest checkpoint. Without any it stays: it may be stock's."""
        if not entries:
            return
        newest = entries[0].manifest
        content = {
            "last_epoch": newest.epoch,
            "last_step": newest.step_in_epoch,
            "last_ckpt_file": newest.file_name,
        }
        data = json.dumps(content).encode()
        path = self._directory / layout.META_NAME
        try:
            if self._current_meta(path) != data:
                sequence.replace(self._files, path, self._token(), lambda writer: writer.write(data))
            self.meta_error = None
        except StorageError as error:
            self.meta_error = error

    def _current_meta(self, path: Path) -> bytes:
        try:
            return self._files.read(path, _META_LIMIT_BYTES)
        except (FileNotFoundError, StorageError):
            return b""


def write_weights(
    files: Files,
    path: Path,
    records: Iterable[Record],
    sealing: Sealing,
    entropy: Entropy,
) -> None:
    """Writes a weights file for stock's ``load_checkpoint``, durably, replacing one of the same name.

    It has no manifest: nothing is resumed from it. A reader sees the whole old file or the whole new one.
    """
    files.make_directory(path.parent)
    draft = Draft("", 0, 0, 0, records, b"", "")
    token = entropy.token(layout.TOKEN_BYTES).hex()
    sequence.replace(files, path, token, partial(_write_sealed, sealing, entropy, draft))


def prune_weights(
    files: Files, directory: Path, ours: Callable[[str], bool], kept: Collection[str]
) -> tuple[Failure, ...]:
    """Removes the files of a folder whose names are ``ours`` and not ``kept``; returns what failed."""
    failures = []
    for name in files.names(directory):
        if ours(name) and name not in kept:
            try:
                files.remove(directory / name)
            except FileNotFoundError:
                continue
            except StorageError as error:
                failures.append(Failure(name, error))
    return tuple(failures)


def remove_temporaries(files: Files, directory: Path) -> tuple[Failure, ...]:
    """Removes what dead writers of weights files left. The caller holds the lock of the run."""
    return prune_weights(files, directory, layout.is_temporary, ())


def _write_sealed(sealing: Sealing, entropy: Entropy, draft: Draft, writer: Writer) -> _Written:
    """Writes the sealed content of a draft, block by block."""
    cipher = Cipher(sealing.mode, sealing.key, entropy)
    file_bytes = plain_bytes = 0
    tags = []
    for block in cipher.seal(container.encode(draft.records, draft.extra)):
        writer.write(block.data)
        file_bytes += len(block.data)
        plain_bytes += block.plain_bytes
        tags.append(block.tag)
    return _Written(file_bytes, plain_bytes, tuple(tags))


def _skip(name: str, dtype: str, dims: tuple[int, ...], size_bytes: int, section: int) -> None:
    """The sink that wants nothing."""


def _reason_heading(owner: Owner) -> str:
    return f"run {owner.run_id} rank {owner.rank}\n"


def _reason(owner: Owner, failure: Failure) -> str:
    return f"{_reason_heading(owner)}{failure}\n"


def _split_corrupt(failures: Sequence[Failure]) -> tuple[tuple[Failure, ...], tuple[Failure, ...]]:
    """What was set aside as corrupt, and all other failures."""
    corrupt = tuple(failure for failure in failures if isinstance(failure.error, CorruptError))
    return corrupt, tuple(failure for failure in failures if failure not in corrupt)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.errno in _MAY_PASS


_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_may_pass),
    stop=tenacity.stop_after_attempt(2),
    wait=tenacity.wait_fixed(0.1),
    reraise=True,
)


def _patiently(read: Callable[..., T], *arguments: Any) -> T:
    """Calls a reading operation, up to three times when its error may pass."""
    try:
        return read(*arguments)
    except StorageError as error:
        if not _may_pass(error):
            raise
    return _again(read, *arguments)


class _PatientReader:
    """A reader that tries again."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.size_bytes = reader.size_bytes

    def read_into(self, target: memoryview, offset: int) -> int:
        return _patiently(self._reader.read_into, target, offset)

    def close(self) -> None:
        self._reader.close()
