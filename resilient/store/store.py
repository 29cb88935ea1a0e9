"""The store: the checkpoints of one rank of one run, in one folder.

A checkpoint is an authentic manifest of ours, beside the data file it names, which has the size it binds.
Only reading every byte tells whether the data is intact too; ``verify`` and ``load`` do that.

Rules that hold for every operation:

* Order is by generation. Neither file times nor wall clocks decide anything.
* Only CorruptError moves files to the quarantine. A wrong key, a disk error, or a file of another run is
  reported, and everything stays in its place.
* Files without a manifest of ours are not ours. Stock's checkpoints in the same folder are never touched;
  their names count as taken.
* A checkpoint is removed only when those that stay have been read in full, or were written by this process,
  and their names are durable. The identities of their files show whether they changed since.
* A caller of ``recover``, ``commit`` or ``prune`` holds the lock of the run, so any temporary file belongs
  to a dead writer. ``commit`` says which traces an interrupted commit or removal leaves, and how they differ
  from other people's files.

Reads are retried when the error may be transient (a signal, a stale NFS handle, a flaky disk); writes and
syncs never.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from resilient.codec.keys import key_id
from resilient.codec.tensors import Sink, skip_tensor
from resilient.config import Sealing
from resilient.errors import (
    CorruptError,
    LostError,
    ShunnedError,
    StorageError,
    UnusableError,
    WrongKeyError,
)
from resilient.host.clock import Clock
from resilient.host.entropy import Entropy
from resilient.host.files import Files, Identity
from resilient.store import commit as sequence
from resilient.store import layout, manifest, meta, pins
from resilient.store.commit import CommitPaths
from resilient.store.entry import Draft, Entry, FileFailure, LoadedCheckpoint, Pruned, Recovery, split_corrupt
from resilient.store.leftovers import Leftovers
from resilient.store.manifest import Manifest, Owner
from resilient.store.patience import patiently
from resilient.store.quarantine import Quarantine
from resilient.store.sealed import Written, glance_sealed, read_sealed, write_sealed
from resilient.store.survey import PlainRule, Survey, Surveyor


class Store:
    """The checkpoints of one rank of one run.

    Unencrypted ones count with ``allow_plain``, or when no key is set and ``only_proven`` is False; the
    ``accepted`` ones always count (see ``PlainRule``). ``meta_error`` is why meta.json, which stock's tools
    read, could not be updated; the checkpoints do not depend on it.
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
        only_proven: bool = False,
        accepted: Collection[str] = (),
    ) -> None:
        self._directory = directory
        self._quarantine = Quarantine(quarantine, directory, files, entropy, Owner(run_id, rank))
        self._files = files
        self._clock = clock
        self._entropy = entropy
        self._sealing = sealing
        self._owner = Owner(run_id, rank)
        self._world_size = world_size
        self._keys = tuple(key for key in (sealing.key, *sealing.old_keys) if key is not None)
        plain = PlainRule((allow_plain or sealing.key is None) and not only_proven, frozenset(accepted))
        self._surveyor = Surveyor(directory, files, self._keys, self._owner, plain)
        self._leftovers = Leftovers(directory, files, self._surveyor, self._keys)
        self._verified: dict[str, tuple[Identity, Identity]] = {}
        self._unacknowledged: set[str] = set()
        self._highest_generation = 0
        self.meta_error: StorageError | None = None

    @property
    def directory(self) -> Path:
        return self._directory

    def entries(self) -> list[Entry]:
        """The checkpoints, newest first: each has an authentic manifest and a data file of the right size.

        Raises StorageError when the folder cannot be listed: that is not the same as being empty.
        """
        return list(self._surveyor.survey().entries)

    def survey(self) -> Survey:
        """The content of the folder: the checkpoints, and our files that are none. Moves nothing."""
        return self._surveyor.survey()

    def recover(self) -> Recovery:
        """Cleans up after writers that died, and sets corrupt checkpoints aside. Idempotent.

        It checks only the size of the data; ``load_newest`` and ``prune`` read what they rely on. Raises
        StorageError when the folder cannot be listed; the result reports every other failure.
        """
        removed, failures = self._leftovers.remove()
        failures += self._quarantine.remove_leftovers()
        survey = self._surveyor.survey()
        quarantined, left = split_corrupt(self._quarantine.set_aside_corrupt(survey.failures))
        self._refresh_meta(survey.entries)
        return Recovery(survey.entries, quarantined, removed, (*failures, *left))

    def commit(self, draft: Draft) -> Entry:
        """Makes a checkpoint. When this returns, it survives any crash.

        Raises StorageError when it could not be made durable; earlier checkpoints are unchanged.
        """
        self._files.make_directory(self._directory)
        survey = self._surveyor.survey_names()
        generation = self._next_generation(survey)
        parent = survey.entries[0].digest if survey.entries else ""
        place = self._free_place(draft, survey.names)
        self._unacknowledged.add(place.data_name)
        data = sequence.commit(
            self._files,
            place,
            partial(write_sealed, self._sealing, self._entropy, draft.records, draft.extra),
            lambda written: self._make_manifest(draft, place, generation, parent, written),
        )
        self._unacknowledged.discard(place.data_name)
        entry = Entry(self._directory, self._surveyor.decode(data), manifest.digest(data))
        self._remember(entry)
        self._refresh_meta((entry,))
        return entry

    def verify(self, entry: Entry) -> None:
        """Reads every byte of a checkpoint.

        Raises CorruptError, WrongKeyError or StorageError. Moves nothing.
        """
        self.load(entry, skip_tensor)

    def set_aside(self, failure: FileFailure) -> FileFailure:
        """Moves a corrupt checkpoint to the quarantine; the result reports it when that fails."""
        return self._quarantine.set_aside(failure)

    def glance(self, entry: Entry) -> None:
        """Checks a checkpoint as far as that needs no decrypting (see ``Cipher.glance``).

        Raises CorruptError, WrongKeyError or StorageError. The checkpoint does not count as verified then.
        """
        glance_sealed(self._files, entry, self._keys)

    def load(self, entry: Entry, sink: Sink) -> bytes:
        """Reads a checkpoint into the memory that ``sink`` gives (see ``container.decode``); returns its
        ``extra``.

        Each block is verified before its content reaches the sink's memory, but only the end proves the
        whole. When this raises (CorruptError, WrongKeyError, StorageError), the caller must throw away what
        the sink received.
        """
        # The identities from before reading: a file that changes meanwhile does not count as verified.
        identities = self._identities(entry)
        extra = read_sealed(self._files, entry, self._keys, sink)
        self._verified[entry.name] = identities
        return extra

    def load_newest(
        self, make_sink: Callable[[Entry], Sink], allowed: Callable[[Entry], bool] = lambda entry: True
    ) -> LoadedCheckpoint | None:
        """Reads the newest checkpoint that is intact and allowed; None when there has never been one.

        It calls ``make_sink`` for each candidate. It sets corrupt ones aside, leaves other unusable ones in
        place, and reports both in the result. Raises UnusableError when checkpoints of this run exist, here
        or in the quarantine, and none can be used (LostError when all are damaged); ShunnedError when others
        were not allowed.
        """
        survey = self._surveyor.survey()
        failures = self._quarantine.set_aside_corrupt(survey.failures)
        for entry in filter(allowed, survey.entries):
            try:
                return LoadedCheckpoint(entry, self.load(entry, make_sink(entry)), tuple(failures))
            except CorruptError as error:
                failures.append(self._quarantine.set_aside(FileFailure(entry.name, error)))
            except (WrongKeyError, StorageError) as error:
                failures.append(FileFailure(entry.name, error))
        if not all(map(allowed, survey.entries)):
            raise ShunnedError("there is no older state to go back to")
        self._refuse_to_start_over(failures)
        return None

    def prune(self, kept: Callable[[Sequence[Entry]], Collection[int]]) -> Pruned:
        """Removes the checkpoints whose generation is not in ``kept(valid checkpoints)``.

        A pinned checkpoint stays, and ``kept`` does not see it. Before it removes anything, it verifies each
        one that stays: it sets a corrupt one aside; an unreadable one does not count, and stays. Failures
        are reported, not raised.
        """
        survey = self._surveyor.survey_names()
        staying, surplus = self._divide(self._loose(survey), kept)
        # When nothing is to be removed, only the newest matters: meta.json names it.
        if not all(map(self._is_verified, staying if surplus else staying[:1])):
            # Something changed behind this process: names alone no longer suffice.
            survey, surplus = self._surveyor.survey(), []
        failures = self._quarantine.set_aside_corrupt(survey.failures)
        surplus = surplus or self._surplus(self._loose(survey), kept, failures)
        removed = tuple(self._remove_all(surplus, failures))
        quarantined, others = split_corrupt(failures)
        gone = {entry.name for entry in removed} | {failure.name for failure in quarantined}
        left = tuple(entry for entry in survey.entries if entry.name not in gone)
        self._refresh_meta(left)
        return Pruned(removed, quarantined, others, left)

    def _identities(self, entry: Entry) -> tuple[Identity, Identity]:
        paths = entry.path, entry.manifest_path
        try:
            data, made = (patiently(self._files.identity, path) for path in paths)
        except FileNotFoundError as error:
            raise CorruptError("the data file or its manifest is missing") from error
        return data, made

    # Committing

    def _next_generation(self, survey: Survey) -> int:
        """One more than the highest generation ever seen here, checkpoints of other keys included."""
        self._highest_generation = max(self._highest_generation, survey.highest_generation) + 1
        return self._highest_generation

    def _free_place(self, draft: Draft, taken: Collection[str]) -> CommitPaths:
        wanted = layout.CheckpointName(
            prefix=draft.prefix,
            rank=self._owner.rank,
            epoch=draft.epoch,
            step_in_epoch=draft.step_in_epoch,
            failure=draft.failure,
        )
        return CommitPaths(self._directory, layout.free_name(wanted, taken).data, self._token())

    def _token(self) -> str:
        return self._entropy.token(layout.TOKEN_BYTES).hex()

    def _make_manifest(
        self, draft: Draft, place: CommitPaths, generation: int, parent: str, written: Written
    ) -> bytes:
        draft.check()
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
        # Before the commit: a manifest that we cannot read back must not become the newest.
        self._surveyor.decode(data)
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
        failures: list[FileFailure],
    ) -> list[Entry]:
        """The checkpoints that may be removed. Verifies those that stay until all are known to be intact."""
        valid = list(entries)
        while True:
            staying, surplus = self._divide(valid, kept)
            bad = self._find_bad(staying) if surplus else None
            if bad is None:
                return surplus
            entry, failure = bad
            failures.append(failure)
            valid.remove(entry)

    def _loose(self, survey: Survey) -> list[Entry]:
        """The checkpoints that are not pinned. Raises StorageError when the folder cannot be listed."""
        pinned = pins.pinned(self._files, survey.entries, survey.names)
        return [entry for entry in survey.entries if entry.name not in pinned]

    def _divide(
        self, entries: Sequence[Entry], kept: Callable[[Sequence[Entry]], Collection[int]]
    ) -> tuple[list[Entry], list[Entry]]:
        """Those that stay, and those that may be removed; one never reported as saved is neither."""
        valid = [entry for entry in entries if entry.name not in self._unacknowledged]
        if not valid:
            return [], []
        generations = {valid[0].generation, *kept(valid)}
        staying = [entry for entry in valid if entry.generation in generations]
        return staying, [entry for entry in valid if entry.generation not in generations]

    def _find_bad(self, staying: Sequence[Entry]) -> tuple[Entry, FileFailure] | None:
        """Reads those not yet known to be intact, until one fails."""
        for entry in staying:
            failure = None if self._is_verified(entry) else self._try_to_verify(entry)
            if failure is not None:
                return entry, failure
        return None

    def _is_verified(self, entry: Entry) -> bool:
        try:
            return self._verified.get(entry.name) == self._identities(entry)
        except (StorageError, CorruptError):
            return False

    def _try_to_verify(self, entry: Entry) -> FileFailure | None:
        try:
            self.verify(entry)
        except CorruptError as error:
            return self._quarantine.set_aside(FileFailure(entry.name, error))
        except (WrongKeyError, StorageError) as error:
            return FileFailure(entry.name, error)
        return None

    def _remove_all(self, surplus: Sequence[Entry], failures: list[FileFailure]) -> Iterator[Entry]:
        """Removes checkpoints, the oldest first."""
        if not surplus:
            return
        try:
            # A writer killed between its last rename and sync leaves a name that is not durable yet.
            self._files.sync_directory(self._directory)
        except StorageError as error:
            failures.append(FileFailure(self._directory.name, error))
            return
        for entry in reversed(surplus):
            try:
                sequence.remove(self._files, CommitPaths(self._directory, entry.name, self._token()))
                self._surveyor.forget(entry)
                self._verified.pop(entry.name, None)
                yield entry
            except StorageError as error:
                failures.append(FileFailure(entry.name, error))
            except FileNotFoundError:
                continue

    # The rest

    def _refuse_to_start_over(self, failures: Sequence[FileFailure]) -> None:
        """Raises UnusableError when this run has checkpoints, even if only in the quarantine."""
        ours = [str(failure) for failure in failures if failure.ours] or self._quarantine.list_ours()
        if not ours:
            return
        text = "no checkpoint of this run can be used: " + "; ".join(ours)
        if any(isinstance(failure.error, WrongKeyError) for failure in failures):
            raise UnusableError(text, hint="give the key they were made with")
        if any(failure.ours and isinstance(failure.error, StorageError) for failure in failures):
            raise UnusableError(text, hint="make them readable again; nothing was changed")
        raise LostError(text, hint="restore a copy of them")

    def _refresh_meta(self, entries: Sequence[Entry]) -> None:
        """Updates meta.json; without any checkpoint it stays as it is, because it may be stock's."""
        if entries:
            self.meta_error = meta.refresh(self._files, self._directory, self._token(), entries[0])
