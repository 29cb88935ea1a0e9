"""resilient: looks at the checkpoints of a run.

    resilient ls RUN        every checkpoint: step, epoch, reason, size, age, cipher
    resilient verify RUN    reads every byte of each; exit status 1 names the bad ones and why

RUN is a run's directory (run.json is in it). Nothing is ever changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resilient.codec import keys
from resilient.config import Environment, Sealing
from resilient.errors import EXIT_USAGE, ResilientError, UsageError
from resilient.host.world import World
from resilient.store.entry import Entry
from resilient.store.opening import open_store
from resilient.store.rundir import RunDirectory, RunRecord
from resilient.store.store import Store


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        stores = _open(Path(options.run), options)
        command: Callable[[list[Store], bool], int] = options.function
        return command(stores, options.json)
    except ResilientError as error:
        print(f"resilient: {error}", file=sys.stderr)
        return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="resilient", description="Looks at the checkpoints of a run.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function, words in (
        ("ls", _list, "list the checkpoints, newest first"),
        ("verify", _verify, "read every byte of every checkpoint; exit 1 names the bad ones"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("run", metavar="RUN", help="the run's directory")
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.add_argument("--key-file", metavar="F", action="append", default=[], help="repeatable")
        command.add_argument("--passphrase-file", metavar="F")
        command.set_defaults(function=function)
    return parser


def _open(root: Path, options: argparse.Namespace) -> list[Store]:
    world = World()
    record = RunDirectory(root, world).read() if root.is_dir() else None
    if record is None:
        raise UsageError(f"{root} is no run directory", hint="name the directory that run.json is in")
    found = _keys(record, options)
    mode = record.mode or "AES-GCM"
    sealing = Sealing(mode, found[0], tuple(found[1:])) if found else Sealing()
    places = [Path(name) for name in record.checkpoints] or [root]
    return [
        open_store(place, world, sealing, record.run_id, rank=rank, allow_plain=True)
        for place in places
        for rank in range(record.world_size)
    ]


def _keys(record: RunRecord, options: argparse.Namespace) -> list[bytes]:
    """The keys that were named, or the user's own where the run was sealed and none was."""
    mode = record.mode or "AES-GCM"
    found = [keys.from_file(Path(name), mode) for name in options.key_file]
    if options.passphrase_file:
        salt = bytes.fromhex(record.salt)
        found.append(keys.from_passphrase_file(Path(options.passphrase_file), salt, mode))
    if not found and record.key_id is not None:
        found.append(keys.default_key(Environment.read().config_home, mode)[0])
    return found


def _list(stores: list[Store], as_json: bool) -> int:
    entries = [entry for store in stores for entry in store.entries()]
    for entry in entries:
        print(json.dumps(_facts(entry)) if as_json else _line(entry))
    if not entries and not as_json:
        print("no checkpoints yet, or none that this key opens")
    return 0


def _verify(stores: list[Store], as_json: bool) -> int:
    bad = 0
    for store in stores:
        for name, error in store.examine():
            bad += error is not None
            facts = {"file": name, "ok": error is None, "error": str(error or "")}
            verdict = "ok" if error is None else f"BAD: {error}"
            print(json.dumps(facts) if as_json else f"{name}  {verdict}")
    return 1 if bad else 0


def _facts(entry: Entry) -> dict[str, Any]:
    made = entry.manifest
    return {
        "file": str(entry.path),
        "step": made.step,
        "epoch": made.epoch,
        "reason": made.reason,
        "size_bytes": made.file_bytes,
        "created": made.created,
        "mode": made.mode,
        "key_id": made.key_id,
    }


def _line(entry: Entry) -> str:
    made = entry.manifest
    age = _age(max(0.0, time.time() - made.created))
    sealed = f"{made.mode} {made.key_id}" if made.mode else "not encrypted"
    size = f"{made.file_bytes / 1e6:.1f} MB"
    where = f"step {made.step:>8}  epoch {made.epoch:>4}"
    return f"{where}  {made.reason:<10} {size:>11}  {age:>8} ago  {sealed}  {entry.name}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
