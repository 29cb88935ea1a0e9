"""What our command lines share: bad usage is an error of ours, and --version."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from resilient.errors import UsageError

_DISTRIBUTION = "resilient-run"


class CommandParser(argparse.ArgumentParser):
    """Bad usage has the exit status 64 here, argparse's own is 2. ``hint`` tells what helps."""

    def __init__(self, *, hint: str = "", **more: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **more)
        self._hint = hint or f"{self.prog} --help tells how"

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(message, hint=self._hint)


class ShowVersion(argparse.Action):
    """Prints the command's name and version, and ends the command with status 0."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(parser.prog, _installed())
        parser.exit()


def _installed() -> str:
    # Imported here: reading the metadata takes longer than the rest of a command's start.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
