"""Names on disk: which file is called what, and what a name means. Values in, values out.

    checkpoint       <root>/checkpoint/rank_0/CKP_rank_0-2_3.ckpt      epoch 2, step 3 in that epoch
    taken name       ...                      CKP_rank_0_1-2_3.ckpt    stock's numeric suffix on the prefix
    on a failure     ...                      CKP_rank_0-2_3_breakpoint.ckpt
    manifest         ...                      CKP_rank_0-2_3.manifest  the same stem
    weights          <root>/checkpoint_network/rank_0/CKP_rank_0-network-2_3.ckpt
                     <root>/checkpoint_trainable/rank_0/CKP_rank_0-trainable_params-2_3.ckpt
    pin              ...                      CKP_rank_0-2_3.pin       the same stem: retention keeps it
    temporary        .<final name>.<16 hexadecimal digits>.tmp         in the folder of the final name

The names of checkpoints and weights are upstream CheckpointMonitor's. A temporary name begins with a dot
and ends in ``.tmp``, so neither stock nor we take it for a checkpoint. Nothing here globs: a prefix may
hold any character of a file name, ``*`` and dashes included.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

DATA_SUFFIX = ".ckpt"
MANIFEST_SUFFIX = ".manifest"
PIN_SUFFIX = ".pin"
META_NAME = "meta.json"
TOKEN_BYTES = 8

NETWORK = "network"
TRAINABLE = "trainable_params"

_CHECKPOINT = re.compile(
    r"(?P<prefix>.+)_rank_(?P<rank>[0-9]+)(?:_(?P<copy>[0-9]+))?"
    r"-(?P<epoch>[0-9]+)_(?P<step>[0-9]+)(?P<breakpoint>_breakpoint)?\.ckpt",
    re.DOTALL,
)
_WEIGHTS = re.compile(
    r"(?P<prefix>.+)_rank_(?P<rank>[0-9]+)"
    r"-(?P<kind>network|trainable_params)-(?P<epoch>[0-9]+)_(?P<step>[0-9]+)\.ckpt",
    re.DOTALL,
)
_TEMPORARY = re.compile(
    r"\.(?P<final>.+\.(?:ckpt|manifest|pin|json|txt|safetensors))\.[0-9a-f]{16}\.tmp", re.DOTALL
)

_RANK = re.compile(r"rank_(0|[1-9][0-9]{0,6})")
_RANK_LOCK = re.compile(rf"\.{_RANK.pattern}\.lock")


@dataclass(frozen=True)
class CheckpointName:
    """The parts of a checkpoint's name. ``copy`` is stock's numeric suffix, 0 for none."""

    prefix: str
    rank: int
    epoch: int
    step_in_epoch: int
    failure: bool = False
    copy: int = 0

    @property
    def stem(self) -> str:
        copy = f"_{self.copy}" if self.copy else ""
        end = "_breakpoint" if self.failure else ""
        return f"{self.prefix}_rank_{self.rank}{copy}-{self.epoch}_{self.step_in_epoch}{end}"

    @property
    def data(self) -> str:
        return self.stem + DATA_SUFFIX

    @property
    def manifest(self) -> str:
        return self.stem + MANIFEST_SUFFIX


@dataclass(frozen=True)
class WeightsName:
    """The parts of a weights file's name; ``kind`` is NETWORK or TRAINABLE."""

    prefix: str
    rank: int
    kind: str
    epoch: int
    step_in_epoch: int

    @property
    def data(self) -> str:
        return f"{self.prefix}_rank_{self.rank}-{self.kind}-{self.epoch}_{self.step_in_epoch}{DATA_SUFFIX}"


def parse_checkpoint(name: str) -> CheckpointName | None:
    """The parts of a data file's name; None when it is not a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(name)
    if match is None or _TEMPORARY.fullmatch(name):
        return None
    numbers = {key: int(match[key] or 0) for key in ("rank", "copy", "epoch", "step")}
    parsed = CheckpointName(
        prefix=match["prefix"],
        rank=numbers["rank"],
        epoch=numbers["epoch"],
        step_in_epoch=numbers["step"],
        failure=match["breakpoint"] is not None,
        copy=numbers["copy"],
    )
    # A number with leading zeros parses the same but makes another name.
    return parsed if parsed.data == name else None


def parse_weights(name: str) -> WeightsName | None:
    """The parts of a weights file's name; None when it is not one."""
    match = _WEIGHTS.fullmatch(name)
    if match is None:
        return None
    parsed = WeightsName(
        prefix=match["prefix"],
        rank=int(match["rank"]),
        kind=match["kind"],
        epoch=int(match["epoch"]),
        step_in_epoch=int(match["step"]),
    )
    return parsed if parsed.data == name else None


def free_name(wanted: CheckpointName, taken: Collection[str]) -> CheckpointName:
    """``wanted``, or with the smallest numeric suffix that makes both its names free."""
    names = (replace(wanted, copy=copy) for copy in count())
    return next(name for name in names if name.data not in taken and name.manifest not in taken)


def manifest_of(data_name: str) -> str:
    """The name of the manifest that belongs to a data file."""
    assert data_name.endswith(DATA_SUFFIX)
    return data_name.removesuffix(DATA_SUFFIX) + MANIFEST_SUFFIX


def data_of(manifest_name: str) -> str:
    """The name of the data file that belongs to a manifest."""
    assert manifest_name.endswith(MANIFEST_SUFFIX)
    return manifest_name.removesuffix(MANIFEST_SUFFIX) + DATA_SUFFIX


def pin_of(data_name: str) -> str:
    """The name of the pin that belongs to a data file."""
    assert data_name.endswith(DATA_SUFFIX)
    return data_name.removesuffix(DATA_SUFFIX) + PIN_SUFFIX


def temporary(final: str, token: str) -> str:
    """The name under which ``final`` is written before it gets its name."""
    name = f".{final}.{token}.tmp"
    assert is_temporary(name)
    return name


def is_temporary(name: str) -> bool:
    """Whether this is a temporary name of ours, not of another program."""
    return _TEMPORARY.fullmatch(name) is not None


def final_of(temporary_name: str) -> str:
    """The final name that a temporary file was written for."""
    match = _TEMPORARY.fullmatch(temporary_name)
    assert match is not None
    return match["final"]


def checkpoint_directory(root: Path, rank: int) -> Path:
    return root / "checkpoint" / f"rank_{rank}"


def network_directory(root: Path, rank: int) -> Path:
    return root / "checkpoint_network" / f"rank_{rank}"


def trainable_directory(root: Path, rank: int) -> Path:
    return root / "checkpoint_trainable" / f"rank_{rank}"


def rank_lock(root: Path, rank: int) -> Path:
    """The lock that the process holds which commits this rank's checkpoints."""
    return root / f".rank_{rank}.lock"


def rank_of_folder(name: str) -> int | None:
    """The rank whose folder has this name; None for any other."""
    match = _RANK.fullmatch(name)
    return int(match[1]) if match else None


def rank_of_lock(name: str) -> int | None:
    """The rank whose lock has this name; None for any other file."""
    match = _RANK_LOCK.fullmatch(name)
    return int(match[1]) if match else None


def is_set_aside_as(name: str, original: str) -> bool:
    """Whether this data file may have this name in the quarantine, where a second one gets a number."""
    stem = original.removesuffix(DATA_SUFFIX)
    return name == original or (name.startswith(f"{stem}~") and name.endswith(DATA_SUFFIX))


def quarantine_directory(root: Path) -> Path:
    return root / "quarantine"
