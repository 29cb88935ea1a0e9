"""What a person sees of a run: one plain line per event, on stderr.

``pretty`` lines begin with "resilient: "; ``json`` lines are objects with the same text. ``quiet`` leaves
warnings, failures and the last line. Nobody listening any more is no reason to fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Console:
    """Writes lines for people."""

    log_format: str = "pretty"
    quiet: bool = False

    def say(self, text: str) -> None:
        """Something went as it should."""
        if not self.quiet:
            self._write("info", text)

    def warn(self, text: str) -> None:
        """Something that the person ought to know, or do something about."""
        self._write("warning", text)

    def end(self, text: str) -> None:
        """The last line of a run that went well; shown whatever the person wants to see."""
        self._write("info", text)

    def _write(self, level: str, text: str) -> None:
        flat = " ".join(text.split("\n"))
        line = (
            json.dumps({"level": level, "message": flat})
            if self.log_format == "json"
            else f"resilient: {flat}"
        )
        with contextlib.suppress(OSError, ValueError):
            # Past Python's buffer: the worker's output goes to the same terminal, in its order.
            os.write(sys.stderr.fileno(), line.encode("utf-8", "replace") + b"\n")
