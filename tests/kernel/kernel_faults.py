"""What may go wrong between a process and the kernel, and what was done there: the Python side of shim.c."""

from __future__ import annotations

import ctypes
import enum
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")
FOREVER = -1


class OperationKind(enum.IntFlag):
    """The kinds of operations, with the bits of shim.c."""

    CREATE = 1
    WRITE = 2
    SYNC = 4
    SYNC_DIRECTORY = 8
    RENAME = 16
    REMOVE = 32
    MAKE_DIRECTORY = 64
    CLOSE = 128
    OPEN_DIRECTORY = 256
    HINT = 512
    OPEN = 1024
    READ = 2048
    LIST = 4096
    STAT = 8192


SYNCS = OperationKind.SYNC | OperationKind.SYNC_DIRECTORY
NAMES = OperationKind.RENAME | OperationKind.REMOVE | OperationKind.MAKE_DIRECTORY
CHANGES = OperationKind.CREATE | OperationKind.WRITE | SYNCS | NAMES
LOOKS = OperationKind.OPEN | OperationKind.READ | OperationKind.LIST | OperationKind.STAT
EVERYTHING = CHANGES | LOOKS | OperationKind.CLOSE | OperationKind.OPEN_DIRECTORY | OperationKind.HINT


class StrikeAction(enum.IntEnum):
    """What happens at an operation that is hit; told in shim.c."""

    NOTHING = 0
    KILL = 1
    STOP = 2
    FAIL = 3
    FAIL_DONE = 4
    SHORT = 5
    LIE = 6


@dataclass(frozen=True)
class KernelFault:
    """The operations of these kinds are counted; those from ``first`` to ``last`` are hit."""

    action: int = StrikeAction.NOTHING
    kinds: int = EVERYTHING
    first: int = 0
    last: int = FOREVER
    stride: int = 1
    error: int = 0

    def arm(self, folder: str, log: str) -> None:
        """From now on it may strike this process, within the folder. The shim must have been preloaded."""
        values = self.kinds, self.action, self.first, self.last, self.stride, self.error
        types = ctypes.c_uint, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_int
        numbers = [type_(value) for type_, value in zip(types, values, strict=True)]
        ctypes.CDLL(None).shim_arm(folder.encode(), log.encode(), *numbers)

    def to_json(self) -> dict:
        return {key: int(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class LoggedOperation:
    """One line of the log: what the process did, and how it ended."""

    number: int
    kind: OperationKind
    struck: bool
    error: int
    inode: int
    path: Path
    target: Path | None

    @classmethod
    def parse(cls, line: str) -> LoggedOperation:
        number, kind, struck, error, inode, path, target = line.split("\t")
        return cls(
            int(number),
            OperationKind(int(kind)),
            struck == "1",
            int(error),
            int(inode),
            Path(path),
            Path(target) if target else None,
        )

    def __str__(self) -> str:
        return f"operation {self.number}, {self.kind.name} {self.path.name}"


def compile_shim(folder: Path) -> Path | None:
    """The library, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "shim.so"
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    command = [compiler, *options, "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=60)
    return library
