"""What the journal of earlier starts tells. Anybody may have written it: at most it makes a start refuse."""

from __future__ import annotations

import errno
from pathlib import Path

from resilient.errors import StorageError
from resilient.host.files import Files
from resilient.journal.events import StepSaved, SupervisorStarted
from resilient.journal.lines import decode

_LIMIT_BYTES = 512 * 1024**2


def tells_of_saves(files: Files, path: Path) -> bool:
    """Whether the journal has an event of a save; one that cannot be read may have."""
    data = _read(files, path)
    if data is None:
        return True
    return any(isinstance(decode(line), StepSaved) for line in data.split(b"\n") if b'"saved"' in line)


def run_of(files: Files, path: Path) -> str:
    """The run that was started last, as the journal has it; "" where it tells of none, or cannot be read."""
    for line in reversed((_read(files, path) or b"").split(b"\n")):
        if b'"run_id"' in line and isinstance(event := decode(line), SupervisorStarted):
            return event.run_id
    return ""


def _read(files: Files, path: Path) -> bytes | None:
    """The whole journal, an empty one where there is none; None where it cannot be read."""
    try:
        return files.read(path, _LIMIT_BYTES)
    except FileNotFoundError:
        return b""
    except StorageError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP):
            # A directory, a pipe or a link has the journal's name: that tells of nothing, and has to go.
            raise
        return None
