"""What a command line runs, apart from its arguments: the name of its run, and whether two are the same."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from supervisor.group.program import Program

_SCRIPTS = frozenset({".py", ".sh", ".bash", ".zsh", ".pl", ".rb", ".R", ".jl", ".lua", ".js"})


def directory_of(program: Program) -> Path:
    """The run directory of a program for which none was named: each script has one of its own."""
    first, *others = program.words[: _script_words(program)]
    if program.kind == "module":
        return Path("runs") / first
    # A folder may be named by dots alone.
    names = [Path(first).stem.strip(".") or Path(os.path.abspath(first)).stem or "run"]
    if others and not _is_code(others):
        names.append(others[-1] if others[-2:-1] == ["-m"] else Path(others[-1]).stem)
    return Path("runs") / "-".join(names)


def is_same_script(program: Program, words: Sequence[str]) -> bool:
    """Whether these words of an earlier start ran the same, with whatever arguments. Without any: yes."""
    count = _script_words(program)
    return not words or _absolute(words[:count]) == _absolute(program.words[:count])


def is_same(program: Program, words: Sequence[str]) -> bool:
    """Whether they ran the same with the same arguments."""
    count = _script_words(program)
    return is_same_script(program, words) and (not words or tuple(words[count:]) == program.words[count:])


def told(words: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(words)


def _script_words(program: Program) -> int:
    """How many of the words say what is run: of a command also what an interpreter or a launcher runs."""
    if program.kind != "command":
        return 1
    is_tool = os.sep not in program.words[0]
    pairs = list(enumerate(pairwise(program.words), 2))
    for count, (before, word) in pairs:
        if Path(word).suffix in _SCRIPTS or (is_tool and before in ("-m", "-c")):
            return count
    # Without a suffix it may be data as well, or a launcher's list of hosts: better a run too many.
    return next((count for count, (_, word) in pairs if is_tool and os.path.isfile(word)), 1)


def _is_code(others: Sequence[str]) -> bool:
    """Whether the last word is a program itself (``bash -c 'first; then second'``), and no name."""
    return list(others[-2:-1]) == ["-c"]


def _absolute(words: Sequence[str]) -> list[str]:
    """The same file, however it was called from here."""
    return [os.path.abspath(word) for word in words]
