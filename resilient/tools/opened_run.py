"""A run as the tools see it: its record, the keys that open it, its stores, and its lock."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from resilient.codec import keys
from resilient.command_parser import CommandParser
from resilient.config import ENC_MODES, Environment, Sealing
from resilient.errors import BusyError, KeySourceError, UnusableError, UsageError
from resilient.host.directories import is_directory, is_there
from resilient.host.files import Files
from resilient.host.world import World
from resilient.run.belief import is_proven, objection, reduced
from resilient.run.floor import Floor, FloorFile, read_quietly
from resilient.run.holdings import PROVEN, Holding, take_stock
from resilient.run.locks import held
from resilient.run.places import Places, find_places, homes
from resilient.run.record_seal import Seal
from resilient.run.reseal import ORIGIN
from resilient.run.rundir import FoundRecord, RunDirectory, RunRecord
from resilient.store import layout
from resilient.store.entry import Entry
from resilient.store.opening import open_store
from resilient.store.store import Store
from resilient.tools.command_line import count, note


@dataclass(frozen=True)
class OpenedRun:
    """A run: where it is, who it is, and the keys that were named to open it."""

    directory: RunDirectory
    found: FoundRecord
    keys: tuple[bytes, ...] = field(repr=False)
    world: World

    @property
    def record(self) -> RunRecord:
        """Its record, as far as one of the keys vouches for it (see ``run.belief``)."""
        return self.found.record if is_proven(self.found, self.keys) else reduced(self.found.record)

    @property
    def root(self) -> Path:
        return self.directory.root

    @cached_property
    def places(self) -> Places:
        """The directories that hold its checkpoints."""
        return find_places(self.world.files, self.root, self.record)

    @cached_property
    def ranks(self) -> list[int]:
        """Those of which there may be checkpoints."""
        return self.places.ranks(self.world.files, self.record.world_size)

    @cached_property
    def floor(self) -> FloorFile:
        """How far it had come, as the home of the tool's caller notes it."""
        return FloorFile(self.world, Environment.read().config_home, self.record.run_id, self.keys)

    @cached_property
    def _known_floor(self) -> Floor | None:
        floor, _ = read_quietly(self.floor)
        return floor and floor.of(*homes(self.world.files, self.root, self.record))

    @cached_property
    def holdings(self) -> tuple[Holding, ...]:
        """What its folders hold."""
        folders = [(place, rank) for place in self.places.own for rank in self.ranks]
        return take_stock(self.world, folders, self.record, Sealing(old_keys=self.keys))

    @cached_property
    def objection(self) -> str:
        """Why its record is not to be believed; "" where nothing speaks against it."""
        if self.found.seal is Seal.LOCKED or is_proven(self.found, self.keys):
            return ""
        return objection(self.found, self.keys, self.holdings, self._known_floor)

    @cached_property
    def takes_plain(self) -> bool:
        """Whether its unencrypted checkpoints count: nothing says that the run is encrypted."""
        return self.takes_plain_beside(None)

    def takes_plain_beside(self, new: bytes | None) -> bool:
        """The same where the run is to be sealed with a new key.

        Copies that an interrupted `resilient rekey` has made with it do not say that the run was encrypted.
        """
        floor = self._known_floor
        if self.found.seal is not Seal.UNSEALED or (floor is not None and floor.seal is not Seal.UNSEALED):
            return False
        if new is not None and self.record.key_id is not None:
            return False
        run = self if new is None else replace(self, keys=(*self.keys, new))
        entries = [entry for holding in run.holdings for entry in holding.entries]
        encrypted = any(e.manifest.key_id is not None and not _is_copy(e, new) for e in entries)
        return not (encrypted or any(holding.locked for holding in run.holdings))

    def stores(
        self, sealing: Sealing | None = None, files: Files | None = None, *, take_plain: bool = False
    ) -> list[Store]:
        """The stores of all ranks and places, opened for reading unless another sealing is given.

        ``take_plain``: unencrypted checkpoints count whatever the run is.
        """
        world = self.world if files is None else self.watched(files)
        return [
            open_store(
                place,
                world,
                sealing or Sealing(old_keys=self.keys),
                self.record.run_id,
                rank=rank,
                world_size=self.record.world_size,
                allow_plain=take_plain,
                only_proven=not (take_plain or self.takes_plain),
                accepted=self.record.accepted,
            )
            for place in self.places.own
            for rank in self.ranks
        ]

    def watched(self, files: Files) -> World:
        """The world with these files in the place of its own."""
        return World(files, self.world.clock, self.world.entropy)

    def weights(self) -> list[Path]:
        """The folders of its weights files; those are left out of which nobody can tell whose they are."""
        kinds = layout.network_directory, layout.trainable_directory
        for place in sorted(self.places.shared):
            note(f"another run's run.json is in {place}: weights files there may be its, and are left out")
        places = [place for place in self.places.own if place not in self.places.shared]
        return [kind(place, rank) for place in places for rank in self.ranks for kind in kinds]

    @contextlib.contextmanager
    def locked(self) -> Iterator[OpenedRun]:
        """Holds the run, and all its places, for as long as they are worked on: the run as it is then.

        Raises BusyError, which says who has it.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.callback(self.directory.lock().release)
                # It may have been worked on until a moment ago.
                run = replace(self, found=_read(self.directory, str(self.root), self.keys))
                stack.enter_context(held(self.world, run.places, run.record.world_size))
            except BusyError as error:
                text = str(error.args[0])
                hint = "stop it first; ls and verify work while it runs"
                raise BusyError(text, pid=error.pid, hint=hint) from None
            yield run


def _is_copy(entry: Entry, new: bytes | None) -> bool:
    """Whether `resilient rekey` has made it with this key from one of a run that was not encrypted."""
    made_with_it = new is not None and entry.manifest.key_id == keys.key_id(new)
    return made_with_it and ORIGIN in entry.info and entry.info.get(PROVEN) is not True


def tell_locked(key_ids: Iterable[str | None]) -> None:
    """Says which keys were not given. A wrong key must not look like damage, or like an empty run."""
    for key_id, number in Counter(key_ids).items():
        what = "is" if number == 1 else "are"
        note(
            f"{count(number, 'checkpoint')} {what} sealed with the key {key_id or '?'}, "
            "which was not given: name it with --key-file, --key-command or --passphrase-file"
        )


def add_run(parser: CommandParser) -> None:
    """The run, as the first word of a command."""
    parser.add_argument("run", metavar="RUN", help="the run's directory: run.json is in it")


def add_keys(parser: CommandParser, prefix: str = "") -> None:
    """The options that name the keys to open checkpoints with."""
    group = parser.add_argument_group(
        "keys", "Without any of these, your own key in ~/.config/resilient is tried."
    )
    group.add_argument(
        f"--{prefix}key-file", metavar="F", action="append", default=[], help="a key; repeatable"
    )
    group.add_argument(f"--{prefix}key-command", metavar="C", help="a command that prints the key")
    group.add_argument(f"--{prefix}passphrase-file", metavar="F", help="a passphrase the key is derived from")


def open_directory(options: argparse.Namespace) -> RunDirectory:
    """The directory of the run that a command names, for what needs neither its record nor a key.

    Raises UsageError for a directory that no run has ever used.
    """
    root = Path(options.run).absolute()
    if not is_directory(root):
        raise UsageError(f"there is no directory {options.run}", hint="runs are in runs/NAME by default")
    if not any(is_there(root / name) for name in ("run.json", "journal.jsonl", "lock")):
        raise UsageError(f"{options.run} is no run directory", hint="name the directory that run.json is in")
    return RunDirectory(root, World())


def open_run(options: argparse.Namespace, prefix: str = "") -> OpenedRun:
    """The run that a command names. Raises UsageError for a directory without one."""
    root = Path(options.run).absolute()
    if not is_directory(root):
        raise UsageError(f"there is no directory {options.run}", hint="runs are in runs/NAME by default")
    world = World()
    directory = RunDirectory(root, world)
    keys = tuple(_keys(options, _read(directory, options.run).record, prefix))
    run = OpenedRun(directory, _read(directory, options.run, keys), keys, world)
    if run.objection:
        note(f"warning: run.json cannot be believed: {run.objection}")
    for remark in run.places.remarks():
        note(f"warning: {remark}")
    return run


def _read(directory: RunDirectory, name: str, keys: Iterable[bytes] = ()) -> FoundRecord:
    try:
        found = directory.look(keys)
    except UnusableError as error:
        if is_there(directory.root / "run.json"):
            raise
        raise UsageError(
            f"{name} holds checkpoints of a run, but not its run.json",
            hint="name the run's own directory, by default runs/NAME",
        ) from error
    if found is None:
        raise UsageError(
            f"{name} is no run directory",
            hint="name the directory that run.json is in; what stock MindSpore saved becomes a run by adopt",
        )
    return found


def _keys(options: argparse.Namespace, record: RunRecord, prefix: str) -> list[bytes]:
    named = {
        name: getattr(options, prefix.replace("-", "_") + name)
        for name in ("key_file", "key_command", "passphrase_file")
    }
    mode = record.mode or ENC_MODES[0]
    found = [keys.from_any_file(Path(name)) for name in named["key_file"]]
    if named["key_command"]:
        found.append(keys.from_command(named["key_command"], mode))
    if named["passphrase_file"]:
        salt = bytes.fromhex(record.salt)
        found.append(keys.from_passphrase_file(Path(named["passphrase_file"]), salt, mode))
    return found or own_keys(record)


def own_keys(record: RunRecord) -> list[bytes]:
    """The user's own keys. None is made here: a new one opens nothing."""
    found = []
    for mode in ENC_MODES:
        path = keys.default_path(Environment.read().config_home, mode)
        try:
            if is_there(path):
                found.append(keys.from_file(path, mode))
        except (KeySourceError, OSError):
            # A run without encryption needs none.
            if record.mode == mode:
                raise
    return list(dict.fromkeys(found))
