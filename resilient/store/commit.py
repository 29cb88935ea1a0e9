"""The commit sequence: how two files become one checkpoint, and how they stop being one.

D is the data file, M its manifest, D~ and M~ their temporary names. A new name is visible at once, but it
survives a crash of the machine only after a sync of its directory. Before that sync, any combination of the
new names may survive. A checkpoint is committed when M exists. M is whole whenever it exists, and so is D
whenever M exists:

    commit                                      after a crash here, recovery finds
    1  create D~, write, sync, close            D~ or nothing, torn or whole      removed
    2  create M~, write, sync, close            D~, M~ or nothing                 removed
    3  sync the directory                       (D~ and M~ are durable now, under names that are ours)
    4  rename D~ to D                           M~ and D or D~                    M~ names D as ours: removed
    5  sync the directory
    6  rename M~ to M                           D and M or M~                     a checkpoint, or as in 4
    7  sync the directory                       the checkpoint; only now is it reported as saved

    removal
    1  rename M to M~, sync the directory       a checkpoint, or D and M~         as in 4
    2  remove D, sync the directory             M~, with D or not                 as in 4
    3  remove M~                                M~ or nothing                     removed

So a data file without a manifest is ours exactly when an authentic M~ names it and its bytes are those that
M~ binds. This code touches no other file, for example one of stock's ModelCheckpoint in the same folder.

A failed sync is never retried, and its data is never reported as saved: the kernel may have dropped the
pages and would call the second sync a success. After any error the sequence undoes its own names as far as
it can, and leaves the rest to recovery, as after a crash. It never renames over an existing name, so the
caller chooses free names and holds the lock of the run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from resilient.errors import StorageError
from resilient.host.files import Files, FileWriter
from resilient.host.world import World
from resilient.store import layout

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class CommitPaths:
    """Where a checkpoint goes: its folder, its two names, and a fresh token for the temporary ones."""

    directory: Path
    data_name: str
    token: str

    @property
    def data(self) -> Path:
        return self.directory / self.data_name

    @property
    def manifest(self) -> Path:
        return self.directory / layout.manifest_of(self.data_name)

    @property
    def data_temporary(self) -> Path:
        return self.directory / layout.temporary(self.data.name, self.token)

    @property
    def manifest_temporary(self) -> Path:
        return self.directory / layout.temporary(self.manifest.name, self.token)


def _gone_is_told(sequence: Callable[P, T]) -> Callable[P, T]:
    """Turns the error for a file of ours that somebody removed meanwhile into a StorageError."""

    @functools.wraps(sequence)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return sequence(*args, **kwargs)
        except FileNotFoundError as error:
            message = f"{error.filename} vanished while it was being saved"
            hint = "another program removes files here: stop it"
            raise StorageError(message, errno=error.errno, hint=hint) from error

    return told


@_gone_is_told
def commit(
    files: Files,
    place: CommitPaths,
    write_data: Callable[[FileWriter], T],
    make_manifest: Callable[[T], bytes],
) -> bytes:
    """Makes one checkpoint durable and returns its manifest's bytes.

    ``write_data`` writes the data file; ``make_manifest`` turns its result into the manifest. When this
    returns, the checkpoint survives any crash. When it raises, the checkpoint is not committed.
    """
    _demand_free(files, place)
    try:
        written = write_synced(files, place.data_temporary, write_data)
        manifest = make_manifest(written)
        write_synced(files, place.manifest_temporary, lambda writer: writer.write(manifest))
        files.sync_directory(place.directory)
        files.rename(place.data_temporary, place.data)
        files.sync_directory(place.directory)
        files.rename(place.manifest_temporary, place.manifest)
        files.sync_directory(place.directory)
    except BaseException:
        # KeyboardInterrupt too. The caller sees the first error, not one of the undoing.
        with contextlib.suppress(StorageError, OSError):
            _undo(files, place)
        raise
    return manifest


def remove(files: Files, place: CommitPaths) -> None:
    """Removes a committed checkpoint; recovery can name every part of it that a crash leaves behind."""
    files.rename(place.manifest, place.manifest_temporary)
    files.sync_directory(place.directory)
    finish_removal(files, place.data, place.manifest_temporary)


def finish_removal(files: Files, data: Path, intent: Path) -> None:
    """Removes a data file and then the manifest that names it as ours (M~). Either may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        files.remove(data)
        files.sync_directory(data.parent)
    with contextlib.suppress(FileNotFoundError):
        files.remove(intent)


@_gone_is_told
def replace(
    files: Files,
    path: Path,
    token: str,
    write: Callable[[FileWriter], T],
    check: Callable[[], None] = lambda: None,
) -> T:
    """Replaces the content of ``path`` durably: a reader sees the whole old file or the whole new one.

    It calls ``check`` after the last write; an error of ``check`` leaves the old file in place.
    """
    temporary = path.with_name(layout.temporary(path.name, token))
    try:
        written = write_synced(files, temporary, write)
        # Only after the sync: until then the kernel may still copy the last piece from memory that changes.
        check()
        files.rename(temporary, path)
        files.sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(StorageError, OSError):
            files.remove(temporary)
        raise
    return written


def rewrite(world: World, path: Path, data: bytes) -> None:
    """Replaces the content of a small file durably, as :func:`replace` does. Raises StorageError."""
    token = world.entropy.token(layout.TOKEN_BYTES).hex()
    replace(world.files, path, token, lambda writer: writer.write(data))


def write_synced(files: Files, path: Path, write: Callable[[FileWriter], T]) -> T:
    """Writes a new file and fsyncs its content; its name is not durable yet."""
    writer = files.create(path)
    try:
        written = write(writer)
        writer.sync()
    except BaseException:
        with contextlib.suppress(StorageError, OSError):
            writer.close()
        raise
    writer.close()
    return written


def _demand_free(files: Files, place: CommitPaths) -> None:
    taken = [path.name for path in (place.data, place.manifest) if _is_there(files, path)]
    assert not taken, f"{taken} would be overwritten"


def _is_there(files: Files, path: Path) -> bool:
    try:
        files.identity(path)
    except FileNotFoundError:
        return False
    return True


def _undo(files: Files, place: CommitPaths) -> None:
    """Undoes in reverse order the steps that a commit has taken.

    The temporary names are ours alone, and the final names were free at the start. So when a temporary is
    gone and its final name exists, this commit renamed it.
    """
    names = set(files.names(place.directory))
    if place.manifest.name in names:
        files.rename(place.manifest, place.manifest_temporary)
        files.sync_directory(place.directory)
        names.add(place.manifest_temporary.name)
    if place.data_temporary.name in names:
        files.remove(place.data_temporary)
    elif place.manifest_temporary.name in names:
        with contextlib.suppress(FileNotFoundError):
            files.remove(place.data)
            files.sync_directory(place.directory)
    if place.manifest_temporary.name in names:
        files.remove(place.manifest_temporary)
