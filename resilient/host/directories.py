"""Questions about a path; if the system gives an error, the answer is no.

``pathlib`` raises instead for a name that is too long, or below a directory that we may not read.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_directory(path: Path) -> bool:
    """Whether the path is a directory that we can see."""
    return os.path.isdir(path)


def is_there(path: Path) -> bool:
    """Whether the path exists and we can see it."""
    return os.path.exists(path)


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths lead to one directory, through links and mounts too."""
    if path == other:
        return True
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False
