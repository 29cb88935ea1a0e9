"""The program that a run is about, as the user named it, and the command line that starts it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from resilient import isolated


@dataclass(frozen=True)
class Program:
    """What is to be run: a script, a module, or any command."""

    kind: str  # "script", "module" or "command"
    words: tuple[str, ...]
    core_dumps: bool = False  # whether a training may leave some; it holds the key

    @property
    def may_dump(self) -> bool:
        """Whether it may leave core dumps. A command holds no key of ours."""
        return self.core_dumps or self.kind == "command"

    def argv(self, door: int = -1) -> list[str]:
        """The command line of a worker; ``door`` lets a command into its group (see ``parent_death``)."""
        if self.kind == "command":
            start = isolated.command("supervisor.group.parent_death")
            return [*start, str(door), str(os.getpid()), *self.words]
        start = isolated.command("resilient.worker.attach", tuple(_interpreter_flags()))
        return [*start, *(["-m"] if self.kind == "module" else []), *self.words]


def _interpreter_flags() -> Sequence[str]:
    """The options that our own interpreter was started with, for the worker's."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]
