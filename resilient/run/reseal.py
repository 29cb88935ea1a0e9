"""Rekeying: seals every checkpoint of a run again, under another key, another mode, or none.

A crash at any instant leaves each training state readable with the old or the new key, and running it again
finishes. For each checkpoint, the oldest first:

    1  commit a copy under a free name, sealed with the new key    as always (see ``commit``)
    2  read the copy back to its last byte
    3  pin the copy if the original is pinned
    4  remove the original, then its pin                           as always
    when no file of the run needs the old key any more, run.json names the new one

The copy has the original's generation, step, reason, time and info; ``rekeyed_from`` in its info is the
digest of the original's manifest. This lets a second try tell a copy from its original, and rebuild the chain
of parents: if a parent was copied, the child names the copy. So a child of a copied parent is copied too,
even if its own seal is right already.

Why the oldest first, and run.json last: until the end the old key alone opens the newest checkpoint, so a
run that resumes with it loses nothing. run.json rejects the new key alone, so a run with it cannot resume
from an older one. The new key together with the old one opens everything at any time.

Corrupt checkpoints are set aside as always. The quarantine itself stays unchanged, under the old key.
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
    """The new name of a resealed file, or the failure of one that could not be resealed.

    ``aside``: that one is in the quarantine now, and no run resumes from it.
    """

    name: str
    failure: FileFailure | None = None
    aside: bool = False


class Rekey:
    """Seals all files of one run with another key. ``finished``: run.json names the new key.

    ``sealing`` holds the new mode and key; its ``old_keys`` open the existing files. ``stores`` were opened
    with it, and with ``allow_plain``. The caller holds the lock of the run.
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
        """Reseals everything; yields each file when it is done or has failed.

        ``weights`` are the folders of the weights files, ``missing`` the places of the run that do not exist.
        A file that could be neither resealed nor set aside still needs the old key. Then run.json keeps the
        old key; otherwise a run with the new key alone would be accepted and resume from an older state.

        Raises WrongKeyError, before it changes anything, when the key of a checkpoint is missing;
        StorageError when the disk fails: the caller can run it again.
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
            error = StorageError("does not exist", hint="mount it; if it is gone for good: --forget-missing")
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
                hint="remove it, or rekey it too with --accept-plain; nothing was changed",
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
        # Again, so that meta.json names the newest one by its new name.
        store.recover()

    def _differs(self, entry: Entry, copies: dict[str, Entry]) -> bool:
        made = entry.manifest
        sealed = (made.mode, made.key_id) == (self._sealing.mode, self._key_id)
        return not sealed or made.parent in copies

    def _reseal(self, store: Store, original: Entry, copies: dict[str, Entry]) -> Iterator[Resealed]:
        """Replaces one checkpoint by its copy and adds the copy to ``copies``."""
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
        """Moves a corrupt checkpoint to the quarantine. Raises StorageError when that fails."""
        aside = store.set_aside(failure)
        if isinstance(aside.error, StorageError):
            raise aside.error
        return aside

    def _copy(self, store: Store, original: Entry, copies: dict[str, Entry]) -> Entry:
        """Commits the copy of a checkpoint and reads it back.

        Raises CorruptError when the original cannot be read, StorageError when the copy cannot.
        """
        made = original.manifest
        # Parses the file's own name, which exists on this disk: an unencrypted manifest may claim anything.
        named = layout.parse_checkpoint(original.name)
        if named is None:
            raise CorruptError("its name is not one of a checkpoint")
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
            raise StorageError(f"{copy.name} does not read back as it was written: {error}") from error
        return copy

    def _decode(self, data: bytes, original: Entry) -> Manifest:
        owner = Owner(original.manifest.run_id, original.manifest.rank)
        return manifest.decode(data, self._keys, owner, allow_plain=True)

    def _write(self, original: Entry, writer: FileWriter) -> Written:
        with opened(self._files, original, self._keys) as blocks:
            # Copied: a block is valid only until the next one is read, and the writer may still need it then.
            written = write_stream(self._sealing, self._entropy, map(bytes, blocks), writer)
        if written.plain_bytes != original.manifest.plain_bytes:
            raise CorruptError("its content is shorter or longer than its manifest says")
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
                # A user who removes the original wants it gone. A vanished copy is an error.
                if name in self._files.names(folder):
                    raise StorageError(f"the copy of {name} vanished while it was made") from error
            except CheckpointError as error:
                yield Resealed(name, FileFailure(name, error))

    def _reseal_weights(self, path: Path) -> bool:
        """Reseals a weights file under the new key; returns whether that was needed."""
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
