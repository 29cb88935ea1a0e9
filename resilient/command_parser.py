"""--version: each command prints its own name and the version that is installed."""

from __future__ import annotations

import argparse
from typing import Any

_DISTRIBUTION = "resilient-run"


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
