"""Compares the checkpoints that a run has saved with those that exist. Pure.

The run's sealed record (``saved``) and the floor (``floor``) say what was saved; if neither does, the journal
and meta.json do. None of these can make a state acceptable. They can only show that one is missing; then the
run does not start from zero, or from an older state, unless the user accepts that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resilient.errors import LostError, UnusableError
from resilient.run.floor import Height, Heights, folder_of
from resilient.run.holdings import Holding

NOTHING_HINT = (
    "restore what is missing (an unmounted volume?); to start anyway: --accept-rollback, which resumes from "
    "checkpoints of this run in the directory that the script names, and begins from step 1 if there are "
    "none; or to start anew: --fresh --archive"
)
"""The hint when no place holds anything. The script may still name a directory that is unknown so far."""

_ANEW = "to begin from step 1 anyway"
_ANEW_HINT = f"{_ANEW}: --accept-rollback, or --fresh --archive"
_ANEW_ALONE_HINT = f"{_ANEW}: move the directory away, or name another one"


@dataclass(frozen=True)
class Shortfall:
    """A folder that holds less than was acknowledged: the known height, and the one found.

    ``damaged``: that very checkpoint exists but cannot be used, or was set aside as corrupt.
    """

    folder: str
    known: Height
    found: Height
    damaged: bool

    def __str__(self) -> str:
        known, found = self.known, self.found
        missing = f"{known.name} of step {known.step} (generation {known.generation}) was saved"
        left = f"the newest left is of step {found.step} (generation {found.generation})"
        if not found.generation:
            return f"{missing} in {self.folder}, but no checkpoint is left"
        lost = known.step - found.step
        steps = f", {lost} step{'' if lost == 1 else 's'} less" if lost > 0 else ""
        state = "but is damaged" if self.damaged else "but is gone"
        return f"{missing} in {self.folder} {state}; {left}{steps}"


def find_shortfalls(root: Path, heights: Heights, holdings: Sequence[Holding]) -> tuple[Shortfall, ...]:
    """The folders that hold less than the floor says."""
    found = {folder_of(root, holding.directory): holding for holding in holdings}
    return tuple(
        Shortfall(folder, height, _height(found.get(folder)), _is_damaged(found.get(folder), height.name))
        for folder, height in heights.items()
        if _height(found.get(folder)).generation < height.generation
    )


def heights_of(root: Path, holdings: Sequence[Holding]) -> Heights:
    """How far the run has come, according to the checkpoints found."""
    heights = {folder_of(root, holding.directory): _height(holding) for holding in holdings}
    return {folder: height for folder, height in heights.items() if height.generation}


def strangers(root: Path, holdings: Sequence[Holding], run_id: str) -> Mapping[Path, tuple[str, ...]]:
    """By place, the ids of other runs with checkpoints there, for places without any of this run."""
    others: dict[Path, tuple[str, ...]] = {}
    for holding in holdings:
        ids = {claim.run_id for claim in holding.strange} - {run_id}
        if ids and not holding.has_traces:
            others[holding.place] = tuple(sorted({*others.get(holding.place, ()), *ids}))
    return others


def _height(holding: Holding | None) -> Height:
    return Height(*holding.newest) if holding is not None else Height(0, 0, "")


def _is_damaged(holding: Holding | None, name: str) -> bool:
    return holding is not None and holding.is_damaged(name)


@dataclass(frozen=True)
class StartFromZero:
    """A place where a worker finds nothing to resume from, and is about to begin from zero.

    ``strange`` counts the manifests of other runs there. ``unseen`` are places with checkpoints of this run
    that the script has not named yet. ``saved``: the run has saved. ``known``: it kept checkpoints in this
    very place before. ``own``: the place is the directory of a supervised run.
    """

    place: Path
    strange: int = 0
    unseen: Sequence[Path] = ()
    saved: bool = False
    known: bool = False
    own: bool = False

    def demand(self) -> str:
        """The remark for the user; "" for none.

        Raises LostError when starting from zero would silently lose what was saved, UnusableError when the
        place holds only another run's checkpoints.
        """
        elsewhere = ", ".join(map(str, self.unseen))
        if self.saved and not (self.known and self.unseen):
            there = f"; there are checkpoints in {elsewhere}" if self.unseen else ""
            raise LostError(
                f"this run has saved checkpoints, but none of them is in {self.place}{there}",
                hint="restore what is missing, or let the script name the directory that it named before",
            )
        if self.strange and self.own:
            raise UnusableError(
                f"{self.place} holds checkpoints of another run ({self.strange}), but none of the run that "
                "run.json names",
                hint="put the right run.json back, or name another --run-dir; "
                "to start anew: --fresh --archive",
            )
        if self.saved:
            return f"there is no checkpoint of this run in {self.place}; it has some in {elsewhere}"
        if self.strange:
            return f"{self.place} holds {_others(self.strange)}, and this run begins anew there"
        return ""


def hint_for(error: UnusableError, *, supervised: bool) -> str:
    """The options of a user whose process must not begin from zero."""
    if not isinstance(error, LostError):
        return error.hint
    return f"{error.hint}; {_ANEW_HINT if supervised else _ANEW_ALONE_HINT}"


def _others(count: int) -> str:
    return f"{count} checkpoints of other runs" if count != 1 else "one checkpoint of another run"
