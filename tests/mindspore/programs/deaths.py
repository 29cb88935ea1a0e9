"""How a program of the tests dies: once in each of the ways that its command line names.

``SIGKILL@10,exception@15``: each death with its place, where the program calls ``at``; ``never``: none. A
mark in the folder of the run says of each that it has happened.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path


class Deaths:
    """Those that one run dies, by their places."""

    def __init__(self, words: str, folder: Path):
        deaths = [] if words == "never" else [word.split("@") for word in words.split(",")]
        self._ways = {place: way for way, place in deaths}
        self._folder = folder

    def at(self, place) -> bool:
        """Dies if a death has this place and has not happened yet; whether it was a signal that came back."""
        way = self._ways.get(str(place))
        mark = self._folder / f"died_{place}"
        if way is None or mark.exists():
            return False
        mark.touch()
        die(way)
        return True


def die(way: str) -> None:
    """In one way; a signal that is handled comes back."""
    if way == "exception":
        raise RuntimeError("a failure of the script's own")
    if way.startswith("os_exit"):
        os._exit(int(way.removeprefix("os_exit")))
    if way.startswith("exit"):
        sys.exit(int(way.removeprefix("exit")))
    if way == "segv":
        ctypes.string_at(0)
    if way == "abort":
        os.abort()
    os.kill(os.getpid(), getattr(signal, way))
