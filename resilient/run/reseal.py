"""Rekeying: every checkpoint of a run sealed anew, under another key, another mode, or none.

A crash at any instant leaves each training state readable with the old or the new key, and doing it again
finishes. For each checkpoint, the oldest first:

    1  commit a copy under a free name, sealed anew    as ever (see ``commit``): there, whole, or not at all
    2  read the copy back to its last byte
    3  pin the copy where the original is pinned
    4  remove the original, then its pin               as ever
    and when no file of the run is left that needs the old key, run.json names the new one.

The copy has the original's generation, step, reason, time and info; ``rekeyed_from`` in its info is the
digest of the original's manifest. By that, a second try knows a copy from its original, and links the chain
of parents again: where a parent was copied, the child names the copy. A child that is sealed right already
is copied as well if its parent was.

Why the oldest first, and run.json last: until the end the old key alone opens the newest checkpoint, so a
run that goes on with it loses nothing; the new key alone is refused by run.json, so it cannot go on from an
older one; the new key with the old one beside it opens everything, always.

What is corrupt is set aside, as everywhere. The quarantine itself stays as it is, under the old key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from resilient.codec.keys import key_id
from resilient.codec.tensors import skip_tensor
from resilient.config import Sealing
from resilient.errors import CheckpointError, CorruptError, StorageError, UnprovenError, WrongKeyError
from resilient.host.files import FileWriter
from resilient.host.world import World
from resilient.run.rundir import RunDirectory, RunRecord
from resilient.store import bare_file, layout, manifest, pins
from resilient.store import commit as sequence
from resilient.store.bare_file import OpeningKey
from resilient.store.commit import CommitPaths
from resilient.store.entry import Entry, FileFailure
from resilient.store.manifest import Manifest, Owner
from resilient.store.sealed import Written, opened, write_stream
from resilient.store.store import Store
from resilient.store.weights import remove_temporaries

ORIGIN = "rekeyed_from"


@dataclass(frozen=True)
class Resealed:
    """A file that is sealed anew, under its new name; or what is wrong with one that could not be.

    ``aside``: that one is in the quarantine now, and nothing goes on from it.
    """

    name: str
    failure: FileFailure | None = None
    aside: bool = False


class Rekey:
    """Seals what belongs to one run anew. ``finished`` tells whether run.json names the new key now.

    ``sealing`` holds the new mode and key, and in ``old_keys`` those that open what there is. ``stores`` were
    opened with it, and with ``allow_plain``. The caller holds the lock of the run.
    """

    def __init__(self, world: World, sealing: Sealing, stores: Sequence[Store]) -> None:
        self._files = world.files
        self._entropy = world.entropy
        self._sealing = sealing
        self._keys = tuple(key for key in (sealing.key, *sealing.old_keys) if key is not None)
        self._key_id = key_id(sealing.key) if sealing.key is not None else None
        self._stores = stores
        self.finished = False

    def run(
        self,
        directory: RunDirectory,
        record: RunRecord,
        weights: Iterable[Path],
        missing: Iterable[Path] = (),
    ) -> Iterator[Resealed]:
        """Does all of it; yields each file as it is done, and what cannot be.

        ``weights`` are the folders of the weights files, ``missing`` the run's places that are not there.
        What could neither be sealed anew nor be set aside still needs the old key: then run.json goes on
        naming that one, or else the new key alone would be accepted, and go on from an older state.

        Raises WrongKeyError, before anything is changed, when a checkpoint is sealed with a key that is not
        there; StorageError where the disk fails: then it can be done again.
        """
        for store in self._stores:
            self._demand_keys(store)
        left = False
        for resealed in self._everything(weights, missing):
            left = left or (resealed.failure is not None and not resealed.aside)
            yield resealed
        if not left:
            plain = self._sealing.mode is None
            named = replace(record, key_id=self._key_id, mode=self._sealing.mode, plain=plain, accepted=())
            # The new key alone vouches for the run from now on.
            directory.sealed_with(self._keys[:1] if self._sealing.key is not None else ()).write(named)
            self.finished = True

    def _everything(self, weights: Iterable[Path], missing: Iterable[Path]) -> Iterator[Resealed]:
        for place in missing:
            error = StorageError("is not there", hint="mount it, or --forget-missing if it is gone for good")
            yield Resealed(str(place), FileFailure(str(place), error))
        for store in self._stores:
            yield from self._checkpoints(store)
        for folder in weights:
            yield from self._weights(folder)

    def _demand_keys(self, store: Store) -> None:
        failures = store.survey().failures
        unproven = [f.name for f in failures if isinstance(f.error, UnprovenError)]
        if unproven:
            raise WrongKeyError(
                f"not encrypted, so anybody could have put it there: {', '.join(unproven)}",
                hint="remove it; or seal it as well with --accept-plain; nothing was changed",
            )
        locked = [f.name for f in failures if isinstance(f.error, WrongKeyError)]
        if locked:
            raise WrongKeyError(
                f"sealed with a key that was not given: {', '.join(locked)}",
                hint="name it with --old-key-file; nothing was changed",
            )

    # Checkpoints

    def _checkpoints(self, store: Store) -> Iterator[Resealed]:
        recovery = store.recover()
        yield from (Resealed(failure.name, failure, aside=True) for failure in recovery.quarantined)
        yield from (Resealed(failure.name, failure) for failure in recovery.failures if failure.ours)
        entries = sorted(store.entries(), key=lambda entry: entry.generation)
        copies = {e.info[ORIGIN]: e for e in entries if isinstance(e.info.get(ORIGIN), str)}
        for original in entries:
            if original.digest in copies or self._differs(original, copies):
                yield from self._reseal(store, original, copies)
        pins.remove_stale(self._files, store.entries())
        # meta.json names the newest one by its new name.
        store.recover()

    def _differs(self, entry: Entry, copies: dict[str, Entry]) -> bool:
        made = entry.manifest
        sealed = (made.mode, made.key_id) == (self._sealing.mode, self._key_id)
        return not sealed or made.parent in copies

    def _reseal(self, store: Store, original: Entry, copies: dict[str, Entry]) -> Iterator[Resealed]:
        """Replaces one checkpoint by its copy, which then is in ``copies``."""
        found = copies.pop(original.digest, None)
        if found is not None and (failure := self._examine(store, found)):
            yield Resealed(found.name, failure, aside=True)
            found = None
        try:
            copy = found or self._copy(store, original, copies)
        except CorruptError as error:
            yield Resealed(
                original.name, self._set_aside(store, FileFailure(original.name, error)), aside=True
            )
            return
        copies[original.digest] = copy
        if pins.pinned(self._files, [original]):
            pins.pin(self._files, copy, self._token())
        with suppress(FileNotFoundError):
            sequence.remove(self._files, CommitPaths(original.directory, original.name, self._token()))
        pins.unpin(self._files, original)
        yield Resealed(copy.name)

    def _examine(self, store: Store, copy: Entry) -> FileFailure | None:
        try:
            store.verify(copy)
        except CorruptError as error:
            return self._set_aside(store, FileFailure(copy.name, error))
        return None

    def _set_aside(self, store: Store, failure: FileFailure) -> FileFailure:
        """Moves a corrupt checkpoint to the quarantine. Raises StorageError when that is impossible."""
        aside = store.set_aside(failure)
        if isinstance(aside.error, StorageError):
            raise aside.error
        return aside

    def _copy(self, store: Store, original: Entry, copies: dict[str, Entry]) -> Entry:
        """Commits the copy of a checkpoint and reads it back.

        Raises CorruptError when the original cannot be read, StorageError when the copy cannot.
        """
        made = original.manifest
        # Its own name, which is a name on this disk: what else a manifest says that is not encrypted may be
        # anything.
        named = layout.parse_checkpoint(original.name)
        if named is None:
            raise CorruptError("it has a name that no checkpoint is given")
        name = layout.free_name(replace(named, copy=0), set(self._files.names(original.directory)))
        place = CommitPaths(original.directory, name.data, self._token())
        parent = copies[made.parent].digest if made.parent in copies else made.parent
        data = sequence.commit(
            self._files,
            place,
            partial(self._write, original),
            partial(self._make_manifest, original, place, parent),
        )
        copy = Entry(original.directory, self._decode(data, original), manifest.digest(data))
        try:
            store.verify(copy)
        except CorruptError as error:
            raise StorageError(f"{copy.name} reads back differently than it was written: {error}") from error
        return copy

    def _decode(self, data: bytes, original: Entry) -> Manifest:
        owner = Owner(original.manifest.run_id, original.manifest.rank)
        return manifest.decode(data, self._keys, owner, allow_plain=True)

    def _write(self, original: Entry, writer: FileWriter) -> Written:
        with opened(self._files, original, self._keys) as blocks:
            # A block is only valid until the next one is asked for, and may still be on its way to the disk.
            written = write_stream(self._sealing, self._entropy, map(bytes, blocks), writer)
        if written.plain_bytes != original.manifest.plain_bytes:
            raise CorruptError("it does not hold as much as its manifest says")
        return written

    def _make_manifest(self, original: Entry, place: CommitPaths, parent: str, written: Written) -> bytes:
        made: Manifest = replace(
            original.manifest,
            file_name=place.data_name,
            parent=parent,
            mode=self._sealing.mode,
            key_id=self._key_id,
            file_bytes=written.file_bytes,
            tags=written.tags,
            info={**original.info, ORIGIN: original.digest},
        )
        return manifest.encode(made, self._sealing.key)

    def _token(self) -> str:
        return self._entropy.token(layout.TOKEN_BYTES).hex()

    # Weights files

    def _weights(self, folder: Path) -> Iterator[Resealed]:
        for failure in remove_temporaries(self._files, folder):
            yield Resealed(failure.name, failure)
        for name in self._files.names(folder):
            if layout.parse_weights(name) is None:
                continue
            try:
                if self._reseal_weights(folder / name):
                    yield Resealed(name)
            except FileNotFoundError as error:
                # Who removes a file while we are at it wants it gone; its copy, nobody may want gone.
                if name in self._files.names(folder):
                    raise StorageError(f"the copy of {name} has gone while it was made") from error
            except CheckpointError as error:
                yield Resealed(name, FileFailure(name, error))

    def _reseal_weights(self, path: Path) -> bool:
        """Replaces a weights file by the same under the new key; whether that was needed."""
        opening = bare_file.read_stock(self._files, path, self._keys, skip_tensor)
        if opening == OpeningKey(self._sealing.mode, self._sealing.key):
            return False
        temporary = path.with_name(layout.temporary(path.name, self._token()))
        try:
            with bare_file.plaintext(self._files, path, opening) as chunks:
                write = partial(write_stream, self._sealing, self._entropy, chunks)
                sequence.write_synced(self._files, temporary, write)
            bare_file.read_stock(self._files, temporary, self._keys, skip_tensor)
            self._files.rename(temporary, path)
            self._files.sync_directory(path.parent)
        except BaseException:
            with suppress(StorageError, OSError):
                self._files.remove(temporary)
            raise
        return True
