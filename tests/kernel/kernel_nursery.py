"""Where lives are lived: the program kernel_life.py under the shim, and what each life has left behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kernel_faults import KernelFault, LoggedOperation

_PROGRAM = Path(__file__).with_name("kernel_life.py")
_PROJECT = _PROGRAM.parents[2]
_DEADLINE_S = 60


@dataclass(frozen=True)
class Lived:
    """A life that is over: its exit status (negative for a signal), its diary, and what it did."""

    root: Path
    status: int
    diary: list[dict] = field(repr=False)
    operations: list[LoggedOperation] = field(repr=False)

    @property
    def saved(self) -> tuple[int, ...]:
        """The steps that were reported as saved."""
        return tuple(page["step"] for page in self.diary if page["what"] == "saved")

    @property
    def failed(self) -> tuple[int, ...]:
        """The steps that were reported as not saved."""
        return tuple(page["step"] for page in self.diary if page["what"] == "failed")

    @property
    def troubles(self) -> list[str]:
        """What was reported beside the saves: retention, meta.json."""
        return [page["text"] for page in self.diary if page["what"] == "trouble"]

    @property
    def errors(self) -> set[int]:
        """The error numbers of the saves that failed."""
        return {page["errno"] for page in self.diary if page["what"] == "failed"}

    @property
    def struck(self) -> list[LoggedOperation]:
        """The operations at which the fault fired."""
        return [operation for operation in self.operations if operation.struck]

    @property
    def counted(self) -> list[LoggedOperation]:
        """The operations of the kinds that the fault counts, by their numbers."""
        return sorted((o for o in self.operations if o.number >= 0), key=lambda o: o.number)


class Nursery:
    """A running kernel_life.py. ``place`` is a folder for diaries and logs, where nothing goes wrong."""

    def __init__(self, shim: Path, place: Path) -> None:
        self._place = place
        environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(_PROJECT)}
        command = [sys.executable, str(_PROGRAM)]
        pipe = subprocess.PIPE
        self._program = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        assert self._hear() == "ready"

    def live(
        self,
        cycle: str,
        root: Path,
        fault: KernelFault | None = None,
        *,
        do: str = "live",
        alarm_s: float = 0,
        at_stop: Callable[[int, Lived], None] = lambda process, so_far: None,
    ) -> Lived:
        """Lets one life be lived below ``root``: the saves of a cycle, or what recovers after them.

        ``at_stop`` is called whenever the shim has stopped it, with its process id and what it has done so
        far. When it raises, the life dies there.
        """
        diary, log = self._place / "diary", self._place / "log"
        diary.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        request = {
            "do": do,
            "cycle": cycle,
            "root": str(root),
            "diary": str(diary),
            "log": str(log),
            "fault": (fault or KernelFault()).to_json(),
            "alarm_s": alarm_s,
        }
        self._say(json.dumps(request))
        while (word := self._hear()).startswith("stopped "):
            try:
                at_stop(int(word.split()[1]), self._read(root, 0, diary, log))
            except BaseException:
                # A test that has failed leaves no life behind, and no answer that the next one would hear.
                self._say("die")
                self._hear()
                raise
            self._say("go")
        lived = self._read(root, int(word), diary, log)
        crashes = [page["text"] for page in lived.diary if page["what"] == "crashed"]
        assert not crashes, crashes[0]
        return lived

    def close(self) -> None:
        """Ends the program, and with it a life that is stopped."""
        self._program.stdin.close()
        try:
            self._program.wait(_DEADLINE_S)
        finally:
            self._program.kill()
            self._program.stdout.close()

    def _read(self, root: Path, status: int, diary: Path, log: Path) -> Lived:
        pages = [json.loads(line) for line in _lines(diary)]
        return Lived(root, status, pages, [LoggedOperation.parse(line) for line in _lines(log)])

    def _say(self, line: str) -> None:
        self._program.stdin.write(line.encode() + b"\n")
        self._program.stdin.flush()

    def _hear(self) -> str:
        ready, _, _ = select.select([self._program.stdout], [], [], _DEADLINE_S)
        assert ready, "the program is silent"
        line = self._program.stdout.readline()
        assert line, f"the program has ended: {self._program.wait(_DEADLINE_S)}"
        return line.decode().strip()


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


class Roots:
    """Fresh folders in one place, each removed when the next one comes."""

    def __init__(self, place: Path) -> None:
        self._root = place / "run"

    def fresh(self) -> Path:
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir()
        return self._root
