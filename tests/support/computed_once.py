"""Results that several tests look at, each computed once, whichever process of the tests comes first.

The tests run in several processes (pytest-xdist), and a training takes seconds. A lock lets the first process
compute what several tests look at or compare with; the others read what it has written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PLACE = "RESILIENT_TESTS_SHARED"
"""The variable that names the folder of one run of the tests; its first process sets it (conftest)."""

T = TypeVar("T")


def computed_once(name: str, compute: Callable[[Path], T]) -> T:
    """What ``compute`` returns, as JSON has it; it gets a folder of its own. An error is not kept."""
    place = Path(os.environ[PLACE]) / hashlib.sha256(name.encode()).hexdigest()[:16]
    place.mkdir(exist_ok=True)
    answer, folder = place / "answer", place / "folder"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (place / "new").write_text(json.dumps(compute(folder)))
            (place / "new").rename(answer)
    result: T = json.loads(answer.read_text())
    return result
