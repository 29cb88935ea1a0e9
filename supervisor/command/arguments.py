"""The options of ``resilient-run`` as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from resilient.config import KeepPolicy, MirrorPolicy, SavePolicy
from supervisor.command.acceptance import Accept
from supervisor.group.program import Program
from supervisor.verdict.restart import RestartPolicy
from supervisor.watching.watchman import Limits


@dataclass(frozen=True)
class KeySource:
    """Where the key comes from; at most one of the three, and the user's default key with none of them.

    ``mode`` is None when nothing is to be encrypted. ``old_files`` open older checkpoints.
    """

    mode: str | None
    file: Path | None = None
    command: str | None = None
    passphrase_file: Path | None = None
    old_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    program: Program
    run_dir: Path
    """Where the run lives; ``is_named`` tells whether the user has said so."""
    save: SavePolicy
    keep: KeepPolicy
    key: KeySource
    restart: RestartPolicy
    grace_s: float
    mirror: MirrorPolicy
    limits: Limits = Limits()
    is_named: bool = True
    standby: bool = False
    fresh: bool = False
    archive: bool = False
    take_from_script: tuple[str, ...] = ()
    extend: bool = False
    log_format: str = "pretty"
    quiet: bool = False
    accept: Accept = field(default_factory=Accept)
