"""resilient adopt: makes a resumable run of what stock MindSpore or MindFormers has saved."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

from resilient.codec import keys
from resilient.config import ENC_MODES, Environment, Sealing
from resilient.errors import CheckpointError, UsageError
from resilient.host.directories import is_directory, is_there
from resilient.host.world import World
from resilient.run import rundir
from resilient.run.belief import is_proven, reduced
from resilient.run.locks import held
from resilient.run.places import Places
from resilient.run.rundir import RunDirectory, RunRecord
from resilient.state.snapshot import Progress as Boundary
from resilient.state.snapshot import adopted_document, encode_extra
from resilient.store.entry import Draft, Entry
from resilient.store.opening import open_store
from resilient.store.store import Store
from resilient.tools import stock_folder
from resilient.tools.command_line import Commands, add_command, note, say
from resilient.tools.progress import ProgressBar, watched
from resilient.tools.stock_folder import StockFile, StockState

REASON = "adopted"
SOURCE = "adopted_from"

_MAX_NUMBER = 2**53  # as in manifests

_MORE = """\
FOLDER is what stock ModelCheckpoint (CKP-2_3.ckpt) or MindFormers'
CheckpointMonitor (checkpoint/rank_0/...) has written. Its newest checkpoint is
read whole, checked, and becomes the first checkpoint of a new run; nothing in
FOLDER is changed. Then

  resilient-run --run-dir DIR train.py

goes on from there: parameters, optimizer, step and epoch, position in the
data. Stock saves no random streams: a script that sets its seeds repeats the
data's order, and what else it draws begins anew. It must train in one call of
Model.train or Model.fit, as stock's file names count the epochs of one call.

The number of steps in an epoch is computed from a checkpoint of the second
epoch or later that has the entries epoch_num and step_num (append_info), or a
global_step; otherwise say it with --steps-per-epoch."""


def add(commands: Commands) -> None:
    """The command."""
    words = "make a resumable run of a folder that stock MindSpore or MindFormers has written"
    parser = add_command(commands, "adopt", run, words, _MORE)
    parser.add_argument("folder", metavar="FOLDER", help="the folder with the checkpoints")
    parser.add_argument("--run-dir", metavar="DIR", required=True, help="where the new run lives")
    parser.add_argument("--file", metavar="NAME", help="go on from this file (default: the newest)")
    parser.add_argument("--steps-per-epoch", metavar="N", type=int, help="where the file does not tell")
    group = parser.add_argument_group("encryption")
    group.add_argument("--key-file", metavar="F", help="the key of the files in FOLDER, and then of the run")
    group.add_argument(
        "--enc-mode", choices=ENC_MODES, help="of the new run (default: the files', or AES-GCM)"
    )
    group.add_argument("--no-encrypt", action="store_true", help="leave the new run unencrypted")


def run(options: argparse.Namespace) -> int:
    """Adopts."""
    folder = Path(options.folder)
    if not is_directory(folder):
        raise UsageError(f"there is no directory {options.folder}")
    if options.no_encrypt and options.enc_mode:
        raise UsageError("--enc-mode and --no-encrypt exclude each other")
    world = World()
    if is_there(folder / "run.json"):
        raise UsageError(f"{options.folder} is a run already", hint="resilient-run --run-dir goes on with it")
    file = stock_folder.choose(world.files, folder, options.file)
    key = keys.from_any_file(Path(options.key_file)) if options.key_file else None
    state = _read(world, file, key)
    boundary = _boundary(file, state, options.steps_per_epoch)
    sealing = _sealing(options, state, key)
    entry = _commit(options, world, _draft(file, state, boundary), sealing)
    _tell(options, file, boundary, entry)
    return 0


def _read(world: World, file: StockFile, key: bytes | None) -> StockState:
    try:
        size_bytes = world.files.identity(file.path).size_bytes
        with ProgressBar("reading", size_bytes, world.clock) as progress:
            return stock_folder.read(watched(world.files, progress), file.path, key)
    except FileNotFoundError as error:
        raise UsageError(
            f"{file.path} is not there any more, or a link that leads nowhere", hint="choose one with --file"
        ) from error
    except CheckpointError as error:
        raise type(error)(f"{file.path} cannot be adopted: {error.args[0]}", hint=error.hint) from error


def _boundary(file: StockFile, state: StockState, told: int | None) -> Boundary:
    """The step boundary at which stock has saved: after a step, before the end of its epoch."""
    steps = stock_folder.steps_per_epoch(file, state.counters, told)
    step = (file.epoch - 1) * steps + file.step_in_epoch
    if max(file.epoch, step, steps) >= _MAX_NUMBER:
        raise UsageError(f"{file.path.name} would be step {step}: no training has come that far")
    return Boundary(0, step, steps)


def _draft(file: StockFile, state: StockState, boundary: Boundary) -> Draft:
    return Draft(
        prefix=file.prefix.removesuffix("_rank_0"),
        epoch=file.epoch,
        step_in_epoch=file.step_in_epoch,
        step=boundary.step,
        records=state.records,
        extra=encode_extra(adopted_document(file.path.name), boundary),
        reason=REASON,
        info={SOURCE: file.path.name},
    )


def _sealing(options: argparse.Namespace, state: StockState, key: bytes | None) -> Sealing:
    """How the new run is sealed: as its source was, and else as any new run."""
    if options.no_encrypt:
        return Sealing()
    mode = options.enc_mode or state.opening.mode or ENC_MODES[0]
    if key is None:
        key, path, created = keys.default_key(Environment.read().config_home, mode)
        if created:
            note(f"made a key for your checkpoints: {path}; without it they cannot be read, keep a copy")
    keys.check_key_length(mode, key)
    return Sealing(mode, key)


def _commit(options: argparse.Namespace, world: World, draft: Draft, sealing: Sealing) -> Entry:
    """Makes the run. Until its checkpoint is safe the record says so: nobody starts from zero meanwhile."""
    sealed_with = [sealing.key] if sealing.key is not None else []
    directory = RunDirectory(Path(options.run_dir).absolute(), world, keys=sealed_with)
    with contextlib.ExitStack() as stack:
        stack.callback(directory.lock().release)
        found = directory.look(sealed_with)
        record = found.record if found is not None else None
        if record is not None and record.status != rundir.ADOPTING:
            raise UsageError(
                f"{options.run_dir} holds a run already", hint="name a directory that does not exist yet"
            )
        stack.enter_context(held(world, Places.alone(directory.root), 1))
        if found is not None and not is_proven(found, sealed_with):
            # An earlier version was interrupted in an adoption.
            record = reduced(found.record)
        record = _claim(directory, record, sealing)
        with ProgressBar("sealing", _size_bytes(draft), world.clock) as progress:
            seen = World(watched(world.files, progress), world.clock, world.entropy)
            store = open_store(directory.root, seen, sealing, record.run_id, allow_plain=True)
            entry = _settle(store, draft)
        directory.write(replace(record, status=rundir.STOPPED, saved=True))
        return entry


def _claim(directory: RunDirectory, record: RunRecord | None, sealing: Sealing) -> RunRecord:
    key_id = keys.key_id(sealing.key) if sealing.key is not None else None
    if record is None:
        # Known as unfinished from its very first moment on.
        record = directory.open({"status": rundir.ADOPTING})
    return directory.write(replace(record, key_id=key_id, mode=sealing.mode, plain=sealing.mode is None))


def _settle(store: Store, draft: Draft) -> Entry:
    """Commits the checkpoint, and reads it back. One of an adoption that was interrupted is superseded."""
    store.recover()
    entry = store.commit(draft)
    store.verify(entry)
    store.prune(lambda entries: {entry.generation})
    return entry


def _size_bytes(draft: Draft) -> int:
    return 2 * sum(len(record.data) for record in draft.records)


def _tell(options: argparse.Namespace, file: StockFile, boundary: Boundary, entry: Entry) -> None:
    if file.failure:
        note(f"{file.path.name} was saved on a failure: stock does not say whether its last step is whole")
    facts = {
        "run": str(Path(options.run_dir).absolute()),
        "from": str(file.path),
        "file": str(entry.path),
        "step": boundary.step,
        "epoch": boundary.epoch,
        "steps_per_epoch": boundary.steps_per_epoch,
    }
    where = f"step {boundary.step} (step {boundary.step_in_epoch} of {boundary.steps_per_epoch} in epoch "
    line = f"adopted {file.path.name}: {where}{boundary.epoch}); go on with"
    say(options, facts, f"{line}\n  resilient-run --run-dir {options.run_dir} SCRIPT")
