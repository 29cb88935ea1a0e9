"""meta.json: names the newest checkpoint for stock's tools. Ours do not depend on it."""

from __future__ import annotations

import json
from pathlib import Path

from resilient.errors import StorageError
from resilient.host.files import Files
from resilient.store import commit, layout
from resilient.store.entry import Entry

_LIMIT_BYTES = 64 * 1024


def refresh(files: Files, directory: Path, token: str, newest: Entry) -> StorageError | None:
    """Makes meta.json describe a checkpoint; returns the error when that fails."""
    made = newest.manifest
    content = {
        "last_epoch": made.epoch,
        "last_step": made.step_in_epoch,
        "last_ckpt_file": made.file_name,
    }
    data = json.dumps(content).encode()
    path = directory / layout.META_NAME
    try:
        if _current(files, path) != data:
            commit.replace(files, path, token, lambda writer: writer.write(data))
    except StorageError as error:
        return error
    return None


def _current(files: Files, path: Path) -> bytes:
    try:
        return files.read(path, _LIMIT_BYTES)
    except (FileNotFoundError, StorageError):
        return b""
