"""What can go wrong with an operation on a disk, and the plans that say when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Killed(BaseException):
    """The process died here. Nothing may catch it but the test: a dead process does not clean up."""


@dataclass(frozen=True)
class DiskOperation:
    """One call on the disk. ``target`` is the new name of a rename, ``size_bytes`` what a write writes."""

    kind: str
    path: Path
    target: Path | None = None
    size_bytes: int = 0

    @property
    def mutates(self) -> bool:
        return self.kind in {
            "create",
            "write",
            "sync",
            "rename",
            "remove",
            "make_directory",
            "sync_directory",
        }


@dataclass(frozen=True)
class Fail:
    """The operation fails with this errno; a write may have written its first half."""

    errno: int
    partial: bool = False


@dataclass(frozen=True)
class Kill:
    """The process dies before the operation; or, ``partial``, in the middle of a write."""

    partial: bool = False


Plan = Callable[[int, DiskOperation], "Fail | Kill | None"]
"""What goes wrong: asked before each operation with its number, from 0."""


def nothing(number: int, operation: DiskOperation) -> Fail | Kill | None:
    """The plan in which nothing goes wrong."""
    return None


def at(number: int, fault: Fail | Kill) -> Plan:
    """The plan in which one operation goes wrong."""
    return lambda n, operation: fault if n == number else None


def always(kind: str, fault: Fail | Kill) -> Plan:
    """The plan in which every operation of a kind goes wrong."""
    return lambda n, operation: fault if operation.kind == kind else None
