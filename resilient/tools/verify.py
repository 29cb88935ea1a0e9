"""resilient verify: reads every byte of a run's checkpoints and weights files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from resilient.errors import CheckpointError, ResilientError, StorageError
from resilient.store import layout
from resilient.store.entry import Entry
from resilient.store.stockfile import read_stock
from resilient.store.store import Store
from resilient.store.survey import Survey
from resilient.tools import console
from resilient.tools.console import EXIT_BAD, Commands, add_command, note, say
from resilient.tools.progress import Progress, watched
from resilient.tools.runs import Run, add_keys, add_run, open_run

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
something is BAD, or a directory that the run's record names is not there."""


def add(commands: Commands) -> None:
    """The command."""
    words = "read every byte of every checkpoint; exit status 1 names the bad ones and why"
    parser = add_command(commands, "verify", run, words, _MORE)
    parser.add_argument("--quick", action="store_true", help="check what can be checked without decrypting")
    add_run(parser)
    add_keys(parser)


def run(options: argparse.Namespace) -> int:
    """Verifies; 1 when a file is bad."""
    run = open_run(options)
    surveys = [(store, store.survey()) for store in run.stores()]
    weights = [] if options.quick else list(_weights(run))
    entries = [entry for _, survey in surveys for entry in survey.entries]
    total_bytes = sum(entry.manifest.file_bytes for entry in entries)
    total_bytes += sum(run.world.files.identity(path).size_bytes for path in weights)
    good = bad = 0
    with Progress("verifying", total_bytes, run.world.clock) as progress:
        for name, kind, error in _verdicts(run, surveys, weights, progress, quick=options.quick):
            progress.clear()
            good += error is None
            bad += error is not None
            facts = {"file": name, "kind": kind, "ok": error is None, "error": str(error or "")}
            say(options, facts, f"{name}  {'ok' if error is None else f'BAD: {error}'}")
    _summarize(options, good, bad)
    return EXIT_BAD if bad or run.places.missing else 0


def _summarize(options: argparse.Namespace, good: int, bad: int) -> None:
    if not options.json and not good and not bad:
        print(f"no checkpoints yet in {options.run}")
    elif not options.json:
        read = "looked at without decrypting" if options.quick else "read in full"
        print(f"{console.count(good + bad, 'file')} {read}: {f'{bad} BAD' if bad else 'all ok'}")


def _verdicts(
    run: Run, surveys: list[tuple[Store, Survey]], weights: list[Path], progress: Progress, *, quick: bool
) -> Iterator[tuple[str, str, ResilientError | None]]:
    """Each file's name, what kind of file it is, and what is wrong with it."""
    files = watched(run.world.files, progress)
    for watching, (store, survey) in zip(run.stores(files=files), surveys, strict=True):
        for entry in survey.entries:
            error = _judge(watching, entry, quick)
            if error is None or not _is_gone(run, store, entry.name):
                yield entry.name, "checkpoint", error
        for failure in survey.failures:
            if failure.ours and not _is_gone(run, store, failure.name):
                yield failure.name, "checkpoint", failure.error
            elif not failure.ours:
                note(f"{failure.name} is not this run's: {failure.error}")
    for path in weights:
        try:
            read_stock(files, path, run.keys, _skip)
            yield path.name, "weights", None
        except FileNotFoundError:
            # Retention was faster.
            continue
        except (CheckpointError, StorageError) as problem:
            yield path.name, "weights", problem


def _judge(store: Store, entry: Entry, quick: bool) -> ResilientError | None:
    try:
        store.glance(entry) if quick else store.verify(entry)
    except (CheckpointError, StorageError) as error:
        return error
    return None


def _is_gone(run: Run, store: Store, name: str) -> bool:
    """Whether a checkpoint has been removed since it was listed: by retention, its manifest goes first."""
    return layout.manifest_of(name) not in run.world.files.names(store.directory)


def _weights(run: Run) -> Iterator[Path]:
    for folder in run.weights():
        for name in run.world.files.names(folder):
            if layout.parse_weights(name) is not None:
                yield folder / name


def _skip(name: str, dtype: str, dims: tuple[int, ...], size_bytes: int, section: int) -> None:
    """The sink that wants nothing."""
