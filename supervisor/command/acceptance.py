"""What a start refuses unless the user accepts it, as options and as a value."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Accept:
    """The risks that the user accepts for this start: an older state than was saved, or none at all;
    unencrypted checkpoints as this run's; a run.json that the run's key does not vouch for."""

    rollback: bool = False
    plain: bool = False
    unsealed: bool = False


def add_options(group: argparse._ArgumentGroup) -> None:
    """The options."""
    group.add_argument(
        "--accept-rollback",
        action="store_true",
        help="saved checkpoints are missing: resume from the newest one that is there, or start anew",
    )
    group.add_argument(
        "--accept-plain",
        action="store_true",
        help="take the unencrypted checkpoints as this run's, and encrypt from now on",
    )
    group.add_argument(
        "--accept-unsealed",
        action="store_true",
        help="read a run.json that the key does not vouch for; look at it first",
    )


def of(values: argparse.Namespace) -> Accept:
    """What the user has accepted."""
    return Accept(values.accept_rollback, values.accept_plain, values.accept_unsealed)
