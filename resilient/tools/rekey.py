"""resilient rekey: everything a run has saved, sealed anew under another key."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from resilient.codec import keys
from resilient.command_parser import CommandParser
from resilient.config import ENC_MODES, Environment, Sealing
from resilient.errors import StorageError, UnusableError, UsageError
from resilient.run.floor import FloorFile
from resilient.run.reseal import Rekey, Resealed
from resilient.store import layout
from resilient.tools import command_line
from resilient.tools.command_line import EXIT_BAD, Commands, add_command, note, say
from resilient.tools.opened_run import OpenedRun, add_keys, add_run, open_run
from resilient.tools.progress import ProgressBar, watched

_MORE = """\
Each checkpoint is copied, the copy is read back, and only then the original
goes: a crash, a full disk or Ctrl-C loses nothing, and the same command again
finishes (an interrupted --no-encrypt asks for --accept-plain then). In between,
--key-file NEW --old-key-file OLD opens all of the run, also for resilient-run.
Files get a number in their name (CKP_rank_0_1-2_3.ckpt), as stock gives one to
a name that is taken. Step, order, time and reason stay. The run must not be
running meanwhile.

  resilient key make new.key
  resilient rekey runs/a --key-file new.key         from your own key to new.key
  resilient rekey runs/a --old-key-file old.key --key-file new.key
  resilient rekey runs/a --key-file new.key --enc-mode AES-CBC
  resilient rekey runs/a --old-key-file old.key --no-encrypt

What is damaged goes to quarantine/, as when training resumes; what lies there
stays as it is. Exit status 1 when something could not be sealed anew: it is
named, and unless it went to quarantine/, the run still needs the old key too,
until the same command has sealed everything."""


def add(commands: Commands) -> None:
    """The command."""
    parser = add_command(commands, "rekey", run, "seal everything of a run anew, under another key", _MORE)
    parser.usage = "resilient rekey [OPTIONS] RUN --key-file NEW"
    add_run(parser)
    _add_new(parser)
    add_keys(parser, "old-")
    parser.add_argument(
        "--forget-missing",
        action="store_true",
        help="a directory of the script's that is not there is no concern of the run any more",
    )
    parser.add_argument(
        "--accept-plain",
        action="store_true",
        help="seal unencrypted checkpoints of an encrypted run as well: anybody could have put them there",
    )


def _add_new(parser: CommandParser) -> None:
    group = parser.add_argument_group("the new key", "One of these four.")
    choice = group.add_mutually_exclusive_group(required=True)
    choice.add_argument("--key-file", metavar="F", help="the new key; `resilient key make F` makes one")
    choice.add_argument("--key-command", metavar="C", help="a command that prints the new key")
    choice.add_argument("--passphrase-file", metavar="F", help="a passphrase the new key is derived from")
    choice.add_argument("--no-encrypt", action="store_true", help="leave everything unencrypted")
    group.add_argument("--enc-mode", choices=ENC_MODES, help="the new mode (default: the run's, or AES-GCM)")


def run(options: argparse.Namespace) -> int:
    """Rekeys; 1 when a file could not be sealed anew."""
    found = open_run(options, "old-")
    sealing = _sealing(found, options)
    done = bad = 0
    with found.locked() as run, ProgressBar("sealing anew", _total_bytes(run), run.world.clock) as progress:
        files = watched(run.world.files, progress)
        if run.objection:
            raise UnusableError(
                f"run.json cannot be believed: {run.objection}",
                hint="put a copy of it back, or start the run once with --accept-unsealed",
            )
        stores = run.stores(sealing, files, take_plain=_takes_plain(run, sealing, options))
        rekeying = Rekey(run.watched(files), sealing, stores)
        record = run.places.settle(run.record, forget_missing=options.forget_missing)
        missing = () if options.forget_missing else run.places.missing
        for resealed in _told(rekeying.run(run.directory, record, run.weights(), missing)):
            progress.clear()
            failure = resealed.failure
            done += failure is None
            bad += failure is not None
            error = str(failure.error) if failure else ""
            facts = {"file": resealed.name, "ok": failure is None, "error": error}
            say(options, facts, f"{resealed.name}  {f'BAD: {error}' if failure else 'sealed anew'}")
    if rekeying.finished:
        _keep_floor(run, sealing, missing=run.places.missing if options.forget_missing else ())
    _summarize(options, run, sealing, done, bad, finished=rekeying.finished)
    return EXIT_BAD if bad else 0


def _takes_plain(run: OpenedRun, sealing: Sealing, options: argparse.Namespace) -> bool:
    """Whether unencrypted checkpoints are sealed too: of a run that was never encrypted, or as accepted.

    An old key that is named says that the run is encrypted.
    """
    names_old_key = options.old_key_file or options.old_key_command or options.old_passphrase_file
    return bool(options.accept_plain or (not names_old_key and run.takes_plain_beside(sealing.key)))


def _keep_floor(run: OpenedRun, sealing: Sealing, missing: Iterable[Path]) -> None:
    """How far the run has come is sealed anew as well; a home that cannot be written is no concern here."""
    new = [sealing.key] if sealing.key is not None else []
    with contextlib.suppress(StorageError):
        FloorFile(run.world, Environment.read().config_home, run.record.run_id, new).reseal(run.root, missing)


def _told(resealed: Iterator[Resealed]) -> Iterator[Resealed]:
    try:
        yield from resealed
    except StorageError:
        note("not finished, and nothing is lost: the same command again goes on")
        raise


def _sealing(run: OpenedRun, options: argparse.Namespace) -> Sealing:
    if options.no_encrypt:
        if options.enc_mode:
            raise UsageError("--enc-mode and --no-encrypt exclude each other")
        return Sealing(old_keys=run.keys)
    mode = options.enc_mode or run.record.mode or ENC_MODES[0]
    if options.key_file:
        key = keys.from_file(Path(options.key_file), mode)
    elif options.key_command:
        key = keys.from_command(options.key_command, mode)
    else:
        # The salt stays the run's: another one would have to be safe on disk before anything is sealed.
        salt = bytes.fromhex(run.record.salt)
        key = keys.from_passphrase_file(Path(options.passphrase_file), salt, mode)
    return Sealing(mode, key, tuple(old for old in run.keys if old != key))


def _total_bytes(run: OpenedRun) -> int:
    """Each file is read, written, and read back."""
    entries = [entry for store in run.stores() for entry in store.entries()]
    return 3 * sum(entry.manifest.file_bytes for entry in entries)


def _summarize(
    options: argparse.Namespace, run: OpenedRun, sealing: Sealing, done: int, bad: int, *, finished: bool
) -> None:
    if bad:
        note(f"{command_line.count(bad, 'file')} could not be sealed anew, see above")
    news = f"{command_line.count(done, 'file')} sealed anew" if done else "there was nothing to do"
    if not finished:
        # What is damaged may need the old key, and without it the run would go on from an older state.
        note(
            f"{news}; NOT finished: until the files above are mended or removed, and the same command is "
            "given again, the run needs the old key too (--old-key-file, here and in resilient-run)"
        )
    elif not options.json:
        now = (
            f"sealed with {sealing.mode}, key {keys.key_id(sealing.key)}" if sealing.key else "NOT encrypted"
        )
        print(f"{news}; the run is now {now}")
        if options.key_file and done:
            print(f"from now on it needs --key-file {options.key_file}, here and in resilient-run")
    aside = [
        name
        for place in run.places.own
        for name in run.world.files.names(layout.quarantine_directory(place))
        if name.endswith(layout.DATA_SUFFIX)
    ]
    if aside and run.keys:
        note(f"in quarantine/ under the old key: {command_line.count(len(aside), 'file')}")
