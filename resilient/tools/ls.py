"""resilient ls: every checkpoint of a run, those that cannot be used included."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resilient.errors import CorruptError, ForeignError, UnprovenError, WrongKeyError
from resilient.host.terminal import printable
from resilient.sizes import size
from resilient.store import layout, pins
from resilient.store.entry import Entry, FileFailure
from resilient.store.store import Store
from resilient.store.survey import claims
from resilient.tools import command_line
from resilient.tools.command_line import EXIT_BAD, Commands, add_command, say
from resilient.tools.opened_run import OpenedRun, add_keys, add_run, open_run, tell_locked

OK = "ok"
BAD = "BAD"
LOCKED = "locked"
UNPROVEN = "unproven"
FOREIGN = "foreign"
UNREADABLE = "unreadable"

_MAX_NUMBER = 2**53

_MORE = """\
VALID is
  ok          the manifest is authentic and the data file has its size;
              `resilient verify` reads every byte
  BAD         it cannot be used; the reason stands behind its name
  locked      sealed with a key that was not given
  unproven    not encrypted though the run is: anybody could have made it
  foreign     another run's, in the same folder
  unreadable  the disk or its permissions did not let us look

Works while the run is being trained; changes nothing. Exit status 1 when
something is BAD, locked, unproven or unreadable, or a directory that the run's
record names is not there."""


@dataclass(frozen=True)
class Row:
    """One checkpoint as it is shown. What no authentic manifest says is claimed, or None."""

    file: str
    state: str
    error: str = ""
    pinned: bool = False
    generation: int = 0
    rank: int | None = None
    step: int | None = None
    epoch: int | None = None
    step_in_epoch: int | None = None
    reason: str | None = None
    size_bytes: int | None = None
    created: float | None = None
    mode: str | None = None
    key_id: str | None = None
    loss: float | None = None
    metrics: Mapping[str, Any] | None = None

    @property
    def valid(self) -> bool | None:
        """None where that cannot be told."""
        return {OK: True, BAD: False}.get(self.state)


def add(commands: Commands) -> None:
    """The command."""
    parser = add_command(commands, "ls", run, "list the checkpoints of a run, newest first", _MORE)
    add_run(parser)
    add_keys(parser)


def run(options: argparse.Namespace) -> int:
    """Lists; 1 when a checkpoint cannot be used."""
    run = open_run(options)
    rows = [row for store in run.stores() for row in rows_of(store, run)]
    if options.json:
        for row in rows:
            facts = {"type": "checkpoint", **dataclasses.asdict(row), "valid": row.valid}
            say(options, facts, None)
    elif rows:
        print("\n".join(_table(rows, run.world.clock.now())))
    else:
        print(f"no checkpoints yet in {options.run}")
    _tell_quarantine(options, run)
    tell_locked(row.key_id for row in rows if row.state == LOCKED)
    unusable = any(row.state not in (OK, FOREIGN) for row in rows)
    return EXIT_BAD if unusable or run.places.missing else 0


def rows_of(store: Store, run: OpenedRun) -> list[Row]:
    """What one store holds, newest first."""
    survey = store.survey()
    pinned = pins.pinned(run.world.files, survey.entries)
    rows = [_of_entry(entry, entry.name in pinned) for entry in survey.entries]
    rows += [row for failure in survey.failures for row in _of_failure(store, failure, run)]
    return sorted(rows, key=lambda row: (row.generation, row.file), reverse=True)


def _of_entry(entry: Entry, pinned: bool) -> Row:
    return _row(str(entry.path), OK, "", vars(entry.manifest), pinned)


def _of_failure(store: Store, failure: FileFailure, run: OpenedRun) -> Iterator[Row]:
    """The row of what is no usable checkpoint; none for what has been removed since we looked."""
    path = store.directory / failure.name
    said = claims(run.world.files, store.directory, failure.name)
    if said is None:
        # A training that goes on removes the manifest first; what is gone now is no concern any more.
        return
    error = failure.error
    state = UNREADABLE
    kinds = (CorruptError, BAD), (WrongKeyError, LOCKED), (UnprovenError, UNPROVEN), (ForeignError, FOREIGN)
    for kind, name in kinds:
        state = name if isinstance(error, kind) else state
    yield _row(str(path), state, str(error.args[0]), said, False)


def _row(file: str, state: str, error: str, said: Mapping[str, Any], pinned: bool) -> Row:
    """A row out of a manifest's fields, of which a claimed one may have any type."""
    name = layout.parse_checkpoint(Path(file).name)
    info = said.get("info")
    info = info if isinstance(info, Mapping) else {}
    return Row(
        file,
        state,
        error,
        pinned,
        generation=_integer(said.get("generation")) or 0,
        rank=name.rank if name else None,
        step=_integer(said.get("step")),
        epoch=name.epoch if name else None,
        step_in_epoch=name.step_in_epoch if name else None,
        reason=_text(said.get("reason")),
        size_bytes=_integer(said.get("file_bytes")),
        created=_number(said.get("created")),
        mode=_text(said.get("mode")),
        key_id=_text(said.get("key_id")),
        loss=_number(info.get("loss")),
        metrics=info.get("metrics") if isinstance(info.get("metrics"), Mapping) else None,
    )


def _integer(value: Any) -> int | None:
    """A whole number; None for one that is larger than anything of ours, and than what a float takes."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and abs(value) <= _MAX_NUMBER else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, float) else _integer(value)


def _text(value: Any) -> str | None:
    """Text that may go to a terminal, whoever wrote it."""
    return printable(value) if isinstance(value, str) else None


# The table


def _table(rows: Sequence[Row], now_s: float) -> Iterator[str]:
    scored = any(row.loss is not None for row in rows)
    header = ["STEP", "EPOCH", "REASON", "SIZE", "AGE", "VALID", "LOSS", "CIPHER", "KEY", "FILE"]
    lines = [header, *(_cells(row, now_s) for row in rows)]
    if not scored:
        for line in lines:
            del line[6]
    right = {0, 1, 3, 4}
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        padded = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(cells)]
        yield "  ".join(padded).rstrip()


def _cells(row: Row, now_s: float) -> list[str]:
    name = _text(Path(row.file).name) or ""
    # What is locked is told once, below the table.
    error = "" if row.state == LOCKED else _text(row.error)
    age = None if row.created is None else command_line.age(max(0.0, now_s - row.created))
    return [
        _or_unknown(row.step),
        _or_unknown(row.epoch),
        _or_unknown(row.reason),
        "?" if row.size_bytes is None else size(row.size_bytes),
        age or "?",
        row.state,
        "" if row.loss is None else f"{row.loss:.4g}",
        row.mode or ("?" if row.size_bytes is None else "none"),
        row.key_id or "-",
        name + (" (pinned)" if row.pinned else "") + (f" ({error})" if error else ""),
    ]


def _or_unknown(value: object) -> str:
    return "?" if value is None else str(value)


# What else there is to know


def _tell_quarantine(options: argparse.Namespace, run: OpenedRun) -> None:
    for place in run.places.own:
        folder = layout.quarantine_directory(place)
        names = [n for n in run.world.files.names(folder) if n.endswith(layout.DATA_SUFFIX)]
        if names:
            facts = {"type": "quarantine", "directory": str(folder), "files": names}
            line = f"{command_line.count(len(names), 'file')} in quarantine, each with its reason: {folder}"
            say(options, facts, line)
