"""A folder of checkpoints that stock MindSpore or MindFormers has written: which file is which state.

ModelCheckpoint        CKP-2_3.ckpt               epoch 2, step 3 in that epoch
                       CKP_1-2_3.ckpt             a second training that found the prefix taken
CheckpointMonitor      checkpoint/rank_0/CKP_rank_0-2_3.ckpt, beside meta.json
on an exception        ..._breakpoint.ckpt        in whatever state the failure left the network
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resilient.codec.tensors import Record
from resilient.errors import CorruptError, UsageError
from resilient.host.directories import is_directory, is_there
from resilient.host.files import Files
from resilient.store import layout
from resilient.store.bare_file import OpeningKey, read_stock

_NAME = re.compile(
    r"(?P<prefix>.+)-(?P<epoch>[0-9]+)_(?P<step>[0-9]+)(?P<breakpoint>_breakpoint)?\.ckpt", re.DOTALL
)
_RANK = re.compile(r"rank_(?P<rank>[0-9]+)")
_COUNTERS = ("epoch_num", "step_num", "global_step")


@dataclass(frozen=True)
class StockFile:
    """A checkpoint of stock's, by its name."""

    path: Path
    prefix: str
    epoch: int
    step_in_epoch: int
    failure: bool

    @property
    def order(self) -> tuple[int, int]:
        return self.epoch, self.step_in_epoch


@dataclass(frozen=True)
class StockState:
    """What a file holds: its records, the counters among them, and what opened it."""

    records: tuple[Record, ...]
    counters: dict[str, int]
    opening: OpeningKey = field(repr=False)


def parse(path: Path) -> StockFile | None:
    """What a file's name says; None for one that is no checkpoint of stock's."""
    match = _NAME.fullmatch(path.name)
    if match is None or layout.parse_weights(path.name) is not None or layout.is_temporary(path.name):
        return None
    numbers = int(match["epoch"]), int(match["step"])
    if min(numbers) < 1:
        return None
    return StockFile(path, match["prefix"], *numbers, match["breakpoint"] is not None)


def choose(files: Files, folder: Path, name: str | None) -> StockFile:
    """The file to go on from: the named one, or the newest. Raises UsageError where that is not clear."""
    place = _place(files, folder)
    if name is not None:
        path = place / name if "/" not in name else Path(name)
        named = parse(path)
        if named is None or not is_there(path) or is_directory(path):
            raise UsageError(f"{path} is no checkpoint of stock MindSpore's", hint="PREFIX-EPOCH_STEP.ckpt")
        return named
    found = [one for n in files.names(place) if (one := parse(place / n)) is not None]
    whole = [one for one in found if not one.failure]
    if not whole:
        raise UsageError(
            f"there is no checkpoint PREFIX-EPOCH_STEP.ckpt in {place}", hint=_hint(files, place)
        )
    prefixes = sorted({one.prefix for one in whole})
    if len(prefixes) > 1:
        raise UsageError(
            f"{place} holds the checkpoints of several trainings: {', '.join(prefixes)}",
            hint="choose one with --file",
        )
    return max(whole, key=lambda one: one.order)


def _place(files: Files, folder: Path) -> Path:
    """Where the files are: the folder itself, or the one rank's folder below it."""
    for place in (folder / "checkpoint", folder):
        ranks = [name for name in files.names(place) if _RANK.fullmatch(name) and is_directory(place / name)]
        if len(ranks) > 1:
            raise UsageError(
                f"{place} holds the checkpoints of {len(ranks)} ranks", hint="a run has one process today"
            )
        if ranks:
            return place / ranks[0]
    return folder


def _hint(files: Files, place: Path) -> str:
    names = files.names(place)
    if any(name.endswith("_breakpoint.ckpt") for name in names):
        return "there are only those of failures, whose state is uncertain: --file takes one all the same"
    if any(name.endswith(".safetensors") for name in names):
        return "files in the safetensors format cannot be adopted"
    return ""


def read(files: Files, path: Path, key: bytes | None) -> StockState:
    """Reads a file whole. Raises CorruptError and WrongKeyError."""
    found: dict[str, tuple[str, tuple[int, ...], bytearray]] = {}

    def sink(name: str, dtype: str, dims: tuple[int, ...], size_bytes: int, section: int) -> memoryview:
        if section != 0:
            raise CorruptError("it was written by Resilient, not by stock MindSpore")
        found[name] = dtype, dims, bytearray(size_bytes)
        return memoryview(found[name][2])

    opening = read_stock(files, path, [] if key is None else [key], sink)
    records = tuple(Record(name, *content) for name, content in found.items())
    return StockState(records, _counters(records), opening)


def _counters(records: Sequence[Record]) -> dict[str, int]:
    """The counters among the records, as far as they are whole numbers."""
    found = {}
    for record in records:
        form = {"Int64": "<q", "Int32": "<i"}.get(record.dtype)
        if record.name in _COUNTERS and form is not None and len(record.data) == struct.calcsize(form):
            found[record.name] = int(struct.unpack(form, record.data)[0])
    return found


def steps_per_epoch(file: StockFile, counters: dict[str, int], told: int | None) -> int:
    """How many steps an epoch has, from the file or from the user.

    Raises UsageError where neither says it, or where they contradict each other.
    """
    seen = _seen_steps(file, counters)
    if told is not None and told < file.step_in_epoch:
        raise UsageError(
            f"--steps-per-epoch {told}: {file.path.name} has step {file.step_in_epoch} in an epoch"
        )
    if told is not None and seen not in (None, told):
        raise UsageError(f"--steps-per-epoch {told}: by its counters {file.path.name} has {seen} in an epoch")
    if told is None and seen is None:
        raise UsageError(
            f"{file.path.name} does not tell how many steps an epoch has",
            hint="say it with --steps-per-epoch: the dataset's get_dataset_size()",
        )
    steps = told if told is not None else seen
    assert steps is not None
    return steps


def _seen_steps(file: StockFile, counters: dict[str, int]) -> int | None:
    """From the steps of the whole run; None where they say nothing."""
    # Stock's failure checkpoints count the steps of the epoch where they say those of the run.
    step = None if file.failure else counters.get("step_num", counters.get("global_step"))
    if step is None or file.epoch < 2:
        return None
    before = step - file.step_in_epoch
    steps, rest = divmod(before, file.epoch - 1)
    return steps if rest == 0 and steps >= file.step_in_epoch else None
