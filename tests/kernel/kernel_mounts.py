"""Real file systems for a test: a tmpfs of a size, and images of ext4 and xfs that can lose their power."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_TRIES = 100
_MAKE_OPTIONS = {"ext4": ["-F", "-J", "size=4"], "ext2": ["-F"], "xfs": []}
_COPY_BYTES = 1024 * 1024


def run(*command: str | Path) -> str:
    """Runs a command of the system; its words on failure are those of the AssertionError."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command[0]}: {done.stderr.strip()}"
    return done.stdout


def try_to_run(*command: str | Path) -> bool:
    """Whether a command of the system succeeds."""
    try:
        run(*command)
    except AssertionError:
        return False
    return True


@contextlib.contextmanager
def mounted(point: Path, *arguments: str | Path) -> Iterator[Path]:
    """A file system mounted at ``point``, and gone afterwards whatever happens."""
    point.mkdir(exist_ok=True)
    run("mount", *arguments, point)
    try:
        yield point
    finally:
        # Lazily: a test that failed may have left a process of its own in there.
        run("umount", "--lazy", point)


def demand_mounts(place: Path, *arguments: str | Path) -> None:
    """Skips the test, with the reason, where this cannot be mounted."""
    try:
        with mounted(place / "trial", *arguments):
            pass
    except (AssertionError, OSError) as error:
        reason = str(error).splitlines()[0].rsplit(": ", 1)[-1]
        pytest.skip(f"mounting is not allowed here: {' '.join(map(str, arguments[:2]))}: {reason}")


@dataclass(frozen=True)
class Image:
    """A file system in a file. What the file holds is what a disk holds when the power goes."""

    path: Path
    kind: str
    options: str = ""

    @classmethod
    def make(cls, path: Path, kind: str, options: str) -> Image:
        """A new file system. Skips the test, with the reason, where it cannot be made and mounted."""
        program = shutil.which(f"mkfs.{kind}")
        if program is None:
            pytest.skip(f"there is no mkfs.{kind}")
        # The least that mkfs.xfs makes; the file is sparse.
        with open(path, "wb") as file:
            file.truncate((300 if kind == "xfs" else 16) * 2**20)
        run(program, "-q", *_MAKE_OPTIONS[kind], path)
        image = cls(path, kind, options)
        demand_mounts(path.parent, *image._arguments())
        return image

    def mounted(self, point: Path) -> contextlib.AbstractContextManager[Path]:
        """The file system, mounted at ``point``."""
        return mounted(point, *self._arguments())

    def cut_off(self, point: Path, copy: Path) -> Image:
        """What is left when the power goes now, while it is mounted at ``point``: its copy, as it is on disk.

        What has not left the page cache of the file system is not in it. A copy during which something was
        written would be of no moment at all; it is made again.
        """
        statistics = Path(f"/sys/dev/block/7:{os.minor(point.stat().st_dev)}/stat")
        for _ in range(_TRIES):
            before = _writes(statistics)
            _copy_sparsely(self.path, copy)
            if _writes(statistics) == before and before[-1] == 0:
                return Image(copy, self.kind, self.options)._repaired()
        raise AssertionError("the file system is never quiet")

    def _repaired(self) -> Image:
        """The same, as the next start of a machine leaves it: without a journal there is a check."""
        if self.kind == "ext2":
            done = subprocess.run(["e2fsck", "-f", "-y", str(self.path)], capture_output=True, timeout=60)
            assert done.returncode in (0, 1), done.stdout
        return self

    def _arguments(self) -> list[str | Path]:
        # The copy is looked at while the file system that it is a copy of is still mounted.
        options = ["loop", self.options, "nouuid" if self.kind == "xfs" else ""]
        return ["-t", self.kind, "-o", ",".join(filter(None, options)), self.path]


def _writes(statistics: Path) -> tuple[int, int, int]:
    """How many writes were done, how many sectors, and how many requests are on their way."""
    fields = [int(field) for field in statistics.read_text().split()]
    return fields[4], fields[6], fields[8]


def _copy_sparsely(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with open(source, "rb") as old, open(target, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        end = 0
        while True:
            try:
                start = os.lseek(old.fileno(), end, os.SEEK_DATA)
            except OSError:
                return  # there is nothing but a hole from here to the end
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            _copy_range(old.fileno(), new.fileno(), start, end)


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        piece = os.pread(old, min(_COPY_BYTES, end - start), start)
        os.pwrite(new, piece, start)
        start += len(piece)
