"""How the tools are spoken to and speak: the parser, lines and JSON on stdout, remarks on stderr."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from resilient.command_parser import CommandParser

EXIT_BAD = 1

Commands = Any
"""What ``argparse.ArgumentParser.add_subparsers`` returns; its type has no public name."""


def add_command(commands: Commands, name: str, function: Any, words: str, more: str) -> CommandParser:
    """A command of ``resilient``: its parser, with ``--json``."""
    first = textwrap.fill(f"{words[0].upper()}{words[1:]}.", 79)
    parser: CommandParser = commands.add_parser(name, help=words, description=f"{first}\n\n{more}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(function=function)
    return parser


@contextlib.contextmanager
def prepared(options: argparse.Namespace) -> Iterator[None]:
    """What was said reaches its reader, or raises BrokenPipeError here and not when Python ends."""
    yield
    sys.stdout.flush()


def say(options: argparse.Namespace, facts: Mapping[str, Any], line: str | None) -> None:
    """One result: as JSON, or as a line for people (None: none)."""
    if options.json:
        print(json.dumps({name: _plain(value) for name, value in facts.items()}))
    elif line is not None:
        print(line)


def note(text: str) -> None:
    """One remark on stderr."""
    with contextlib.suppress(OSError, ValueError):
        print(f"resilient: {text}", file=sys.stderr, flush=True)


def close_quietly() -> None:
    """Nobody reads our output any more (``resilient ls | head``): what is left of it goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)


def _plain(value: Any) -> Any:
    """Not every reader of JSON takes NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# Words


def age(seconds: float) -> str:
    """A duration for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
