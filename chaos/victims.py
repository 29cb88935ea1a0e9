"""A run that is there to be killed: its supervisor, worker and saver, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from chaos import witness
from resilient import isolated
from resilient.codec.keys import KEY_BYTES
from resilient.config import Sealing
from resilient.host.entropy import SystemEntropy
from resilient.host.world import World
from resilient.journal.base import JournalEvent
from resilient.journal.lines import decode
from resilient.run.rundir import RunDirectory
from resilient.store.opening import open_store

PROGRAM = Path(__file__).parent / "training.py"
DEADLINE_S = 240.0
_MARK = "RESILIENT_VICTIM"
_POLL_S = 0.0005
_TAIL_BYTES = 400


_Kind = TypeVar("_Kind", bound=JournalEvent)


class VictimError(Exception):
    """Something did not happen, or must not have."""


@dataclass(frozen=True)
class VictimSetup:
    """How a run is set up: the program's arguments, and the options of ``resilient-run``.

    ``program`` takes a folder and --steps N, and writes down its steps as ``chaos/training.py`` does.
    ``cipher`` is the mode that its checkpoints are encrypted with, None for plain ones.
    """

    seed: int
    steps: int
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    program: Path = PROGRAM
    cipher: str | None = None

    @property
    def training(self) -> tuple[str, ...]:
        """The arguments that the result depends on."""
        found: list[str] = []
        for name in ("--mode", "--way"):
            if name in self.arguments:
                found += (name, self.arguments[self.arguments.index(name) + 1])
        return (*found, *(["--augment"] if "--augment" in self.arguments else []))


class Victim:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, shape: VictimSetup) -> None:
        self._folder = folder
        self._shape = shape
        self._mark = SystemEntropy().token(8).hex()
        self._journal = folder / "run" / "journal.jsonl"
        self._supervisor: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        os.mkfifo(folder / "exit")
        key = SystemEntropy().token(max(KEY_BYTES[shape.cipher])) if shape.cipher else None
        self._sealing = Sealing(shape.cipher, key)
        if key is not None:
            descriptor = os.open(folder / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(key)
        RunDirectory(folder / "run", World()).open({"seed": shape.seed})

    def start(self) -> None:
        """Starts the supervisor; the same command each time."""
        cipher = self._shape.cipher
        seal = ["--enc-mode", cipher, "--key-file", str(self._folder / "key")] if cipher else ["--no-encrypt"]
        options = ["--run-dir", str(self._folder / "run"), *seal, *self._shape.options]
        program = [
            str(self._shape.program),
            str(self._folder),
            "--steps",
            str(self._shape.steps),
            *self._shape.arguments,
        ]
        with open(self._folder / "said", "ab") as said:
            self._supervisor = subprocess.Popen(
                [*isolated.command("supervisor.command.cli"), *options, *program],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # Thousands of runs leave nothing in the user's home.
                env={**os.environ, _MARK: self._mark, "XDG_CONFIG_HOME": str(self._folder / "home")},
                start_new_session=True,
            )

    # Looking

    def lines(self) -> list[witness.WitnessLine]:
        """What the program has written down."""
        path = self._folder / "steps"
        return witness.parse(path.read_text()) if path.exists() else []

    def last_lines(self) -> list[witness.WitnessLine]:
        """The last few of them; quick."""
        with contextlib.suppress(FileNotFoundError), open(self._folder / "steps", "rb") as steps:
            start = max(0, steps.seek(0, os.SEEK_END) - _TAIL_BYTES)
            steps.seek(start)
            text = steps.read().decode()
            return witness.parse(text.partition("\n")[2] if start else text)
        return []

    def events(self, kind: type[_Kind]) -> list[_Kind]:
        """The journal's events of one kind."""
        if not self._journal.exists():
            return []
        # One that was killed in the middle of a line has left it torn.
        found = map(decode, self._journal.read_bytes().split(b"\n"))
        return [event for event in found if isinstance(event, kind)]

    def result(self) -> str:
        """The hash that the program has written at its end."""
        return (self._folder / "result").read_text()

    def durable_step(self) -> int:
        """The newest committed step; 0 for none."""
        record = RunDirectory(self._folder / "run", World()).read()
        assert record is not None
        entries = open_store(self._folder / "run", World(), self._sealing, record.run_id).entries()
        return max((entry.step for entry in entries), default=0)

    @property
    def over(self) -> bool:
        """Whether the supervisor has ended."""
        return self._supervisor is None or self._supervisor.poll() is not None

    def worker(self) -> int:
        """The pid of the present worker; 0 for none."""
        return self._child("resilient.worker.attach")

    def saver(self) -> int:
        """The pid of the present saver; 0 for none."""
        return self._child("resilient.saving.saver_process")

    def supervisor(self) -> int:
        """The pid of the supervisor; 0 when it has ended."""
        return 0 if self._supervisor is None or self.over else self._supervisor.pid

    def _child(self, module: str) -> int:
        pid = self.supervisor()
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                    return int(child)
        return 0

    def processes(self) -> list[int]:
        """Everything that lives of the run, however it was detached."""
        return [pid for pid in _pids() if self._mark.encode() in _environment(pid)]

    # Killing

    def kill(self, pids: Sequence[int], number: int = signal.SIGKILL) -> None:
        """Sends the signal to all of them, one right after the other, once each is known to be ours."""
        with contextlib.ExitStack() as stack:
            descriptors = [_open(pid, stack) for pid in pids]
            if not all(self._mark.encode() in _environment(pid) for pid in pids):
                raise ProcessLookupError(f"not all of {pids} are of this run any more")
            for descriptor in descriptors:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)

    def exit(self, status: int) -> None:
        """Has the program leave by ``os._exit``. Raises OSError while it does not listen yet."""
        pipe = os.open(self._folder / "exit", os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, bytes([status]))
        os.close(pipe)

    # Waiting

    def wait_for(self, condition: Callable[[], bool], what: str, *, poll_s: float = _POLL_S) -> None:
        """Waits for something that sends no event. Raises VictimError at the deadline."""
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > end_s:
                raise VictimError(f"did not happen: {what}; see {self._folder}")
            time.sleep(poll_s)

    def wait_until_gone(self) -> None:
        """Waits until no process of the run is left. Raises VictimError when some stay."""
        if self._supervisor is not None:
            self.wait_for(lambda: self.over, "the end of the supervisor", poll_s=0.02)
        self.wait_for(lambda: not self.processes(), "the end of every process", poll_s=0.02)

    def status(self) -> int | None:
        """The supervisor's exit status; None while it runs."""
        return None if self._supervisor is None else self._supervisor.poll()

    def clear_away(self) -> None:
        """Ends whatever is left of a run that went wrong."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                self.kill([pid])
        if self._supervisor is not None:
            self._supervisor.wait()


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _environment(pid: int) -> bytes:
    """The environment that a process was started with; a dead one, and another user's, shows none."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _open(pid: int, stack: contextlib.ExitStack) -> int:
    descriptor = os.pidfd_open(pid)
    stack.callback(os.close, descriptor)
    return descriptor
