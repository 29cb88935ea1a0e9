"""What a start refuses unless the user accepts it, as options and as a value."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Accept:
    """What the user takes upon himself, for this start: an older state than was saved, or none at all;
    unencrypted checkpoints as this run's; a run.json that the run's key does not vouch for."""

    rollback: bool = False
    plain: bool = False
    unsealed: bool = False


def add_options(group: argparse._ArgumentGroup) -> None:
    """The options."""
    group.add_argument(
        "--accept-rollback",
        action="store_true",
        help="newer checkpoints than there are were saved: go on from what there is, or from the beginning",
    )
    group.add_argument(
        "--accept-plain",
        action="store_true",
        help="the unencrypted checkpoints that are there now are this run's; it is encrypted from now on",
    )
    group.add_argument(
        "--accept-unsealed",
        action="store_true",
        help="the run's key does not vouch for run.json: read it all the same (look at it first)",
    )


def of(values: argparse.Namespace) -> Accept:
    """What the user has accepted."""
    return Accept(values.accept_rollback, values.accept_plain, values.accept_unsealed)
