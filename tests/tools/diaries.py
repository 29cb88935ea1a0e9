"""Journals for tests, written as a supervisor would."""

from __future__ import annotations

import json
from pathlib import Path


class Diary:
    """A journal that is written as a supervisor would; each event comes one second after the one before."""

    def __init__(self, root="run", monotonic=100.0):
        self.path = Path(root) / "journal.jsonl"
        self.now = 1_700_000_000.0
        self.monotonic = monotonic

    def __call__(self, event, after_s=1.0, **fields):
        self.now += after_s
        self.monotonic += after_s
        line = {"time": self.now, "monotonic": self.monotonic, "event": event, **fields}
        self.raw(json.dumps(line).encode() + b"\n")
        return self

    def raw(self, data):
        with self.path.open("ab") as file:
            file.write(data)


def flat(text):
    """A text without its line breaks."""
    return " ".join(text.split())


def begin(diary, pid=10, attempt=1):
    diary("run", run_id="r", command=["train.py", "--epochs", "3"], pid=pid)
    diary("attempt", attempt=attempt, pid=pid + 1)
    diary("hello", attempt=attempt, pid=pid + 1)
    return diary
