"""The quarantine: the folder for corrupt checkpoints, each with its reason.

    CKP_rank_0-2_3.ckpt, .manifest, .reason.txt        with ~1, ~2, ... where the names are taken

Nothing in it is removed or replaced.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from resilient.errors import CorruptError, StorageError
from resilient.host.entropy import Entropy
from resilient.host.files import Files
from resilient.store import commit as sequence
from resilient.store import layout
from resilient.store.entry import FileFailure
from resilient.store.manifest import Owner
from resilient.store.weights import prune_weights

_REASON_SUFFIX = ".reason.txt"
_COPY_MARK = "~"  # a prefix may hold it too: then a temporary file does not count as ours, and stays
_REASON_LIMIT_BYTES = 64 * 1024
_REASON_LIMIT_CHARACTERS = 4 * 1024  # of at most ten bytes each


class Quarantine:
    """The quarantine folder, for the checkpoints of one owner in one directory."""

    def __init__(self, folder: Path, directory: Path, files: Files, entropy: Entropy, owner: Owner) -> None:
        self._folder = folder
        self._directory = directory
        self._files = files
        self._entropy = entropy
        self._owner = owner

    def set_aside_corrupt(self, found: Sequence[FileFailure]) -> list[FileFailure]:
        """Sets the corrupt ones aside; returns all others unchanged."""
        return [self.set_aside(f) if isinstance(f.error, CorruptError) else f for f in found]

    def set_aside(self, failure: FileFailure) -> FileFailure:
        """Moves a corrupt checkpoint to the quarantine; the result reports it when that fails."""
        try:
            self._move_to_quarantine(failure)
        except StorageError as error:
            message = f"is corrupt ({failure.error}) and cannot be set aside: {error}"
            return FileFailure(failure.name, StorageError(message, errno=error.errno))
        return failure

    def _move_to_quarantine(self, failure: FileFailure) -> None:
        self._files.make_directory(self._folder)
        stem = self._free_stem(failure.name)
        # The reason first: so every file in the quarantine has one, even after a crash in the middle. Then
        # the data: recovery finds and moves a manifest left alone, but not data left alone.
        reason = self._folder / f"{stem}{_REASON_SUFFIX}"
        text = _reason(self._owner, failure)
        sequence.replace(
            self._files,
            reason,
            self._entropy.token(layout.TOKEN_BYTES).hex(),
            lambda writer: writer.write(text),
        )
        self._move(failure.name, stem + layout.DATA_SUFFIX)
        self._move(layout.manifest_of(failure.name), stem + layout.MANIFEST_SUFFIX)

    def _move(self, name: str, name_there: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rename(self._directory / name, self._folder / name_there)
        # The new name first, so that a crash between the two never leaves the file without a name.
        self._files.sync_directory(self._folder)
        self._files.sync_directory(self._directory)

    def _free_stem(self, data_name: str) -> str:
        """A stem that no file in the quarantine has yet, so that nothing there is replaced."""
        taken = set(self._files.names(self._folder))
        stem = data_name.removesuffix(layout.DATA_SUFFIX)
        stems = chain([stem], (f"{stem}{_COPY_MARK}{number}" for number in count(1)))
        suffixes = layout.DATA_SUFFIX, layout.MANIFEST_SUFFIX, _REASON_SUFFIX
        return next(free for free in stems if not taken.intersection(free + suffix for suffix in suffixes))

    def list_ours(self) -> list[str]:
        """The checkpoints of this run and rank that were set aside."""
        found = []
        for name in self._files.names(self._folder):
            if name.endswith(_REASON_SUFFIX) and not layout.is_temporary(name):
                text = self._read_reason(self._folder / name)
                if text.startswith(_reason_heading(self._owner)):
                    found.append(f"{name.removesuffix(_REASON_SUFFIX)} in the quarantine")
        return found

    def _read_reason(self, path: Path) -> str:
        try:
            return self._files.read(path, _REASON_LIMIT_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except StorageError as error:
            # Larger than any reason of ours, or not a regular file: it is not ours, and the disk is fine.
            if error.errno in (errno.EFBIG, errno.EINVAL, errno.ELOOP):
                return ""
            raise

    def remove_leftovers(self) -> tuple[FileFailure, ...]:
        """Removes reasons of ours that were never finished."""
        return prune_weights(self._files, self._folder, self._is_unfinished, ())

    def _is_unfinished(self, name: str) -> bool:
        """Whether a name in the quarantine is a temporary of ours; other ranks may be writing there too."""
        if not layout.is_temporary(name):
            return False
        stem = layout.final_of(name).removesuffix(_REASON_SUFFIX)
        parsed = layout.parse_checkpoint(stem.split(_COPY_MARK)[0] + layout.DATA_SUFFIX)
        return parsed is not None and parsed.rank == self._owner.rank


def _reason_heading(owner: Owner) -> str:
    return f"run {owner.run_id} rank {owner.rank}\n"


def _reason(owner: Owner, failure: FileFailure) -> bytes:
    """The text of a reason. It quotes names from the folder and from the corrupt file: they may have any
    length and may not be UTF-8."""
    text = f"{_reason_heading(owner)}{failure}"[:_REASON_LIMIT_CHARACTERS]
    return f"{text}\n".encode("utf-8", "backslashreplace")
