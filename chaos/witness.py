"""What a killed run has written down, and whether it did any step again that it did not have to.

A line says that a process has begun, or completed, a step. A step's boundary lies between its completion
and the beginning of the next: who has begun a step had the boundary before it in the mirror. So, after a
death of a worker,

    last line  "begun s"      step s - 1 was safe: the next process begins s
               "done s"       s was complete, its copy perhaps not: the next process begins s + 1, or s

Where the memory has died as well, the next process begins after the newest durable checkpoint.

A state on which two supervisors died before they knew of a completed step is set aside, and the run resumes
from an older one. Two kills within a few short steps can look like that: the supervisor writes behind that a
step is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BEGUN, DONE = "begun", "done"


@dataclass(frozen=True)
class WitnessLine:
    """One line: which process, what, and which step."""

    pid: int
    what: str
    step: int


@dataclass(frozen=True)
class Death:
    """A killing: ``lines`` stood there when it was over.

    ``durable_step`` is the newest step on disk, where that is all that was left; None where nothing may be
    lost. ``copies`` tells whether a copy may have been in progress: a worker that could end by itself has
    finished it.
    """

    lines: int
    durable_step: int | None = None
    copies: bool = True


@dataclass(frozen=True)
class RepeatedSteps:
    """Steps that were run again: because their copy was in progress, because memory had died too, and because
    a state was set aside.

    ``errors`` are all others, and whatever else does not add up.
    """

    in_copy: int
    since_durable: int
    errors: tuple[str, ...]
    set_aside: int = 0


def parse(text: str) -> list[WitnessLine]:
    """The lines of a file that is perhaps being written."""
    whole, _, _ = text.rpartition("\n")
    words = [line.split() for line in whole.splitlines()]
    return [WitnessLine(int(pid), what, int(step)) for pid, what, step in words]


def judge(
    lines: Sequence[WitnessLine], deaths: Sequence[Death], steps: int, states_set_aside: int = 0
) -> RepeatedSteps:
    """Holds a finished run of so many steps against its deaths.

    ``states_set_aside`` is how often its supervisor has set a state aside: so often it may go back further.
    """
    in_copy = since_durable = set_aside = 0
    missing = sorted(_missing(lines, steps))
    errors = [f"{len(missing)} steps never ran, the first is {missing[0]}"] if missing else []
    for number in range(1, len(lines)):
        last, first = lines[number - 1], lines[number]
        if last.pid == first.pid:
            errors += _out_of_order(last, first)
            continue
        again = _next_step(last) - first.step
        met = [death for death in deaths if death.lines == number]
        floor = min((d.durable_step for d in met if d.durable_step is not None), default=None)
        where = f"after {last.what} {last.step} a new process began {first.step}"
        if not met:
            errors.append(f"{where}: nobody had killed the one before")
        elif again < 0 or first.what != BEGUN:
            errors.append(f"{where}: steps were left out")
        elif again > 1 and states_set_aside and first.step <= (floor or first.step):
            states_set_aside -= 1
            set_aside += again
        elif floor is not None:
            since_durable += again
            errors += [f"{where}, and step {floor} was durable"] if first.step <= floor else []
        elif again == 1 and last.what == DONE and any(death.copies for death in met):
            in_copy += 1
        elif again:
            errors.append(f"{where}: {again} completed steps were run again")
    return RepeatedSteps(in_copy, since_durable, tuple(errors), set_aside)


def _missing(lines: Sequence[WitnessLine], steps: int) -> set[int]:
    return set(range(1, steps + 1)) - {line.step for line in lines if line.what == DONE}


def _next_step(last: WitnessLine) -> int:
    return last.step + 1 if last.what == DONE else last.step


def _out_of_order(last: WitnessLine, line: WitnessLine) -> list[str]:
    expected = (DONE, last.step) if last.what == BEGUN else (BEGUN, last.step + 1)
    if (line.what, line.step) == expected:
        return []
    return [f"{line.what} {line.step} follows {last.what} {last.step} in one process"]
