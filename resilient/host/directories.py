"""What can be told of a path by its name alone; where the system does not say, the answer is no.

``pathlib`` raises for a name that is too long, or below a directory that is not ours to look into.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_directory(path: Path) -> bool:
    """Whether a directory is there that we may look at."""
    return os.path.isdir(path)


def is_there(path: Path) -> bool:
    """Whether anything is there that we may look at."""
    return os.path.exists(path)


def is_same(path: Path, other: Path) -> bool:
    """Whether two names lead to one directory, over links and mounts too."""
    if path == other:
        return True
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False
