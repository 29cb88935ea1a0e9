"""resilient-run .../chaos/sabotage.py PLAN MARKS SCRIPT [ARGS...]: a script whose training fails as planned.

PLAN is a comma-separated list of STEP:FAULT. A fault is a signal's name (SIGKILL, SIGSEGV, ...),
"exception", or "exit:N" (``os._exit``). Each strikes once in the life of a run, at the end of its step: MARKS
is a folder that remembers those that have. The script itself stays as it is; the faults come in through a
callback that is added to its ``Model`` calls.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resilient import isolated

FILE = str(Path(__file__).resolve())


class SabotageError(RuntimeError):
    """The exception of a planned fault."""


@dataclass(frozen=True)
class PlannedFault:
    """What happens at the end of which step."""

    step: int
    kind: str

    @classmethod
    def parse(cls, text: str) -> PlannedFault:
        """Out of STEP:FAULT; raises ValueError for anything else."""
        step, _, kind = text.partition(":")
        known = kind == "exception" or kind.startswith("exit:") or hasattr(signal, kind)
        if not known or int(step) < 1:
            raise ValueError(f"{text!r} is not STEP:FAULT")
        return cls(int(step), kind)

    def strike(self) -> None:
        """Lets it happen."""
        if self.kind == "exception":
            raise SabotageError(f"planned failure at step {self.step}")
        if self.kind.startswith("exit:"):
            os._exit(int(self.kind.removeprefix("exit:")))
        os.kill(os.getpid(), getattr(signal, self.kind))


def install(faults: list[PlannedFault], marks: Path) -> None:
    """Adds the faults to every ``Model.train`` and ``Model.fit`` of this process."""
    from mindspore.train import Callback, Model

    class Saboteur(Callback):  # type: ignore[misc]
        """Strikes at the end of a step."""

        def on_train_step_end(self, run_context: Any) -> None:
            for fault in faults:
                mark = marks / f"{fault.step}-{fault.kind}"
                if fault.step == run_context.original_args().cur_step_num and not mark.exists():
                    mark.touch()
                    fault.strike()

    for name in ("train", "fit"):
        _wrap(Model, name, Saboteur)


def _wrap(model: Any, name: str, saboteur: Any) -> None:
    original = getattr(model, name)

    def method(self: Any, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        return original(self, *args, callbacks=[*given, saboteur()], **kwargs)

    setattr(model, name, method)


def main() -> None:
    """Runs the script under its plan."""
    plan, marks, script = sys.argv[1:4]
    isolated.give_back_path(str(Path(script).resolve().parent))
    faults = [PlannedFault.parse(text) for text in plan.split(",")]
    install(faults, Path(marks))
    sys.argv[:] = sys.argv[3:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
