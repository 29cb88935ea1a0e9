"""What can be told of directories by their names alone; where the system does not say, the answer is no."""

from __future__ import annotations

import os
from pathlib import Path


def is_directory(path: Path) -> bool:
    """Whether a directory is there that we may look at."""
    return os.path.isdir(path)


def is_same(path: Path, other: Path) -> bool:
    """Whether two names lead to one directory, over links and mounts too."""
    if path == other:
        return True
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False
