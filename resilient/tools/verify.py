"""resilient verify: reads every byte of a run's checkpoints and weights files."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resilient.codec import keys
from resilient.codec.tensors import skip_tensor
from resilient.errors import (
    CheckpointError,
    CorruptError,
    ResilientError,
    StorageError,
    UnprovenError,
    WrongKeyError,
)
from resilient.host.files import Files
from resilient.store import layout
from resilient.store.bare_file import is_encrypted, read_stock
from resilient.store.entry import Entry
from resilient.store.store import Store
from resilient.store.survey import Survey, claims
from resilient.tools import command_line
from resilient.tools.command_line import EXIT_BAD, Commands, add_command, note, say
from resilient.tools.ls import BAD, LOCKED, OK, UNPROVEN, UNREADABLE
from resilient.tools.opened_run import OpenedRun, add_keys, add_run, open_run, tell_locked
from resilient.tools.progress import ProgressBar, watched

CHECKPOINT = "checkpoint"

_MORE = """\
Of each checkpoint the manifest is authenticated and every byte of the data
file is read, checked against it, decrypted and parsed. Weights files
(checkpoint_network, checkpoint_trainable) have no manifest: they are decrypted
and parsed, which finds damage, but not that a file was exchanged for another
one.

--quick decrypts nothing: manifests, sizes, the order of the blocks. AES-CBC,
SM4-CBC and unencrypted files are still read in full; of AES-GCM only the block
headers are, so a flipped bit inside a block is not found. Weights files are
left out.

Works while the run is being trained; changes nothing. Exit status 1 when
something is BAD, locked (sealed with a key that was not given), unproven (not
encrypted though the run is: anybody could have put it there) or unreadable
(the disk or its permissions do not let us look), or a directory that the run's
record names is not there."""


def add(commands: Commands) -> None:
    """The command."""
    words = "read every byte of every checkpoint; exit status 1 names the bad ones and why"
    parser = add_command(commands, "verify", run, words, _MORE)
    parser.add_argument("--quick", action="store_true", help="check what can be checked without decrypting")
    add_run(parser)
    add_keys(parser)


@dataclass(frozen=True)
class _VerifiedFile:
    """A file, what kind of file it is, and what is wrong with it; of a locked one, the key it needs."""

    name: str
    kind: str
    error: ResilientError | None = None
    key_id: str | None = None

    @property
    def state(self) -> str:
        if self.error is None:
            return OK
        kinds = (UnprovenError, UNPROVEN), (WrongKeyError, LOCKED), (StorageError, UNREADABLE)
        return next((state for kind, state in kinds if isinstance(self.error, kind)), BAD)


def run(options: argparse.Namespace) -> int:
    """Verifies; 1 when a file is bad, locked or unreadable."""
    run = open_run(options)
    surveys = [(store, store.survey()) for store in run.stores()]
    weights = {} if options.quick else dict(_weights(run))
    entries = [entry for _, survey in surveys for entry in survey.entries]
    total_bytes = sum(entry.manifest.file_bytes for entry in entries) + sum(weights.values())
    verdicts = []
    with ProgressBar("verifying", total_bytes, run.world.clock) as progress:
        for verdict in _verdicts(run, surveys, list(weights), progress, quick=options.quick):
            progress.clear()
            _say(options, run, verdict)
            verdicts.append(verdict)
    _summarize(options, Counter(verdict.state for verdict in verdicts))
    tell_locked(v.key_id for v in verdicts if v.state == LOCKED and v.kind == CHECKPOINT)
    return EXIT_BAD if run.places.missing or any(v.error is not None for v in verdicts) else 0


def _say(options: argparse.Namespace, run: OpenedRun, verdict: _VerifiedFile) -> None:
    text = verdict.state if verdict.error is None else f"{verdict.state}: {verdict.error}"
    if verdict.state == LOCKED and verdict.kind == CHECKPOINT:
        text = f"locked {'with another' if run.keys else 'and needs a'} key (id {verdict.key_id or '?'})"
    facts = {"file": verdict.name, "kind": verdict.kind, "ok": verdict.error is None}
    facts |= {"state": verdict.state, "error": str(verdict.error or ""), "key_id": verdict.key_id}
    say(options, facts, f"{verdict.name}  {text}")


def _summarize(options: argparse.Namespace, states: Counter[str]) -> None:
    total = sum(states.values())
    if not options.json and not total:
        print(f"no checkpoints yet in {options.run}")
    elif not options.json:
        read = "looked at without decrypting" if options.quick else "read in full"
        found = ", ".join(
            f"{states[state]} {state}" for state in (OK, BAD, LOCKED, UNPROVEN, UNREADABLE) if states[state]
        )
        print(f"{command_line.count(total, 'file')} {read}: {'all ok' if total == states[OK] else found}")


def _verdicts(
    run: OpenedRun,
    surveys: list[tuple[Store, Survey]],
    weights: list[Path],
    progress: ProgressBar,
    *,
    quick: bool,
) -> Iterator[_VerifiedFile]:
    files = watched(run.world.files, progress)
    for watching, (store, survey) in zip(run.stores(files=files), surveys, strict=True):
        for entry in survey.entries:
            error = _judge(watching, entry, quick)
            if error is None or not _is_gone(run, store, entry.name):
                yield _VerifiedFile(entry.name, CHECKPOINT, error, entry.manifest.key_id)
        for failure in survey.failures:
            said = claims(run.world.files, store.directory, failure.name)
            if failure.ours and said is not None:
                key_id = said.get("key_id")
                known = key_id if isinstance(key_id, str) else None
                yield _VerifiedFile(failure.name, CHECKPOINT, failure.error, known)
            elif not failure.ours:
                note(f"{failure.name} is not this run's: {failure.error}")
    for path in weights:
        # What is not there any more has been removed meanwhile: retention was faster.
        with contextlib.suppress(FileNotFoundError):
            yield _VerifiedFile(path.name, "weights", _judge_weights(run, files, path))


def _judge_weights(run: OpenedRun, files: Files, path: Path) -> ResilientError | None:
    try:
        read_stock(files, path, run.keys, skip_tensor)
    except (CheckpointError, StorageError) as error:
        # Without a manifest nobody can tell damage from a key that is not the run's.
        known = run.record.key_id in [keys.key_id(key) for key in run.keys]
        if isinstance(error, CorruptError) and not known and is_encrypted(files, path):
            return WrongKeyError("it does not open with the key that was given: another one's, or damaged")
        return error
    return None


def _judge(store: Store, entry: Entry, quick: bool) -> ResilientError | None:
    try:
        store.glance(entry) if quick else store.verify(entry)
    except (CheckpointError, StorageError) as error:
        return error
    return None


def _is_gone(run: OpenedRun, store: Store, name: str) -> bool:
    """Whether a checkpoint has been removed since it was listed: by retention, its manifest goes first."""
    return layout.manifest_of(name) not in run.world.files.names(store.directory)


def _weights(run: OpenedRun) -> Iterator[tuple[Path, int]]:
    """The weights files, with their sizes."""
    for folder in run.weights():
        for name in run.world.files.names(folder):
            if layout.parse_weights(name) is not None:
                yield folder / name, _size_bytes(run.world.files, folder / name)


def _size_bytes(files: Files, path: Path) -> int:
    """How much there is to read; what cannot be looked at is told when its turn comes."""
    try:
        return files.identity(path).size_bytes
    except (FileNotFoundError, StorageError):
        return 0
