"""resilient export: one checkpoint as a plain file that needs neither us nor a key."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from resilient.codec import container
from resilient.config import Sealing
from resilient.errors import UsageError
from resilient.host.directories import is_directory
from resilient.host.entropy import Entropy
from resilient.host.files import Files, FileWriter
from resilient.sizes import size
from resilient.store import commit, layout
from resilient.store.entry import Entry
from resilient.store.sealed import opened, read_sealed, write_stream
from resilient.tools import safetensors
from resilient.tools.command_line import Commands, add_command, count, note, say
from resilient.tools.opened_run import OpenedRun, add_keys, add_run, open_run
from resilient.tools.pin import chosen
from resilient.tools.progress import ProgressBar, watched
from resilient.tools.safetensors import TensorSpec

SUFFIXES = (".ckpt", ".safetensors")

_MORE = """\
FILE ends in .ckpt (stock mindspore.load_checkpoint opens it without a key) or
in .safetensors. It gets what stock would have saved: parameters, optimizer
state, counters, append_info; not what only resuming needs (random streams, the
state of callbacks). Text of append_info goes to the metadata of a .safetensors
file. The whole checkpoint is verified while it is read, and FILE appears only
when it is complete. It is not encrypted, and only you can read it (mode 0600)."""


def add(commands: Commands) -> None:
    """The command."""
    parser = add_command(
        commands, "export", run, "write one checkpoint as a plain .ckpt or .safetensors", _MORE
    )
    add_run(parser)
    parser.add_argument(
        "--step", metavar="N", type=int, help="the checkpoint of this step (default: the newest)"
    )
    parser.add_argument("--rank", metavar="R", type=int, default=0, help="of this rank (default: 0)")
    parser.add_argument("--out", metavar="FILE", required=True, help="FILE.ckpt or FILE.safetensors")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    add_keys(parser)


def run(options: argparse.Namespace) -> int:
    """Exports."""
    run = open_run(options)
    target = _target(run, options)
    entry = _entry(run, options)
    # Read and written; a .safetensors file takes another round or two.
    with ProgressBar("exporting", 2 * entry.manifest.file_bytes, run.world.clock) as progress:
        files = watched(run.world.files, progress)
        source = _ExportedCheckpoint(files, entry, run.keys, run.world.entropy)
        write = source.write_ckpt if target.suffix == ".ckpt" else source.write_safetensors
        token = run.world.entropy.token(layout.TOKEN_BYTES).hex()
        commit.replace(files, target, token, write)
    if source.left_out:
        note(f"left out, {target.suffix} files cannot hold their kind: {', '.join(source.left_out)}")
    if entry.manifest.mode is not None:
        note(f"{target.name} is NOT encrypted, the checkpoint is: whoever can read the file has the weights")
    size_bytes = run.world.files.identity(target).size_bytes
    facts = {"file": str(target), "step": entry.step, "epoch": entry.manifest.epoch, "from": str(entry.path)}
    line = f"step {entry.step} (epoch {entry.manifest.epoch}) is in {target}, {size(size_bytes)}"
    say(options, {**facts, "size_bytes": size_bytes, "left_out": source.left_out}, line)
    return 0


def _target(run: OpenedRun, options: argparse.Namespace) -> Path:
    target = Path(options.out)
    if target.suffix not in SUFFIXES or target.name in SUFFIXES:
        raise UsageError(f"--out {options.out} ends in neither {' nor '.join(SUFFIXES)}")
    if not is_directory(target.parent):
        raise UsageError(f"there is no directory {target.parent}")
    if is_directory(target):
        raise UsageError(f"{target} is a directory")
    if target.name in run.world.files.names(target.parent) and not options.force:
        raise UsageError(f"{target} is there already", hint="--force replaces it")
    return target


def _entry(run: OpenedRun, options: argparse.Namespace) -> Entry:
    if options.rank not in run.ranks:
        raise UsageError(f"the run has {count(len(run.ranks), 'rank')}: 0 to {run.ranks[-1]}")
    if options.step is not None:
        found = [e for e in chosen(run, str(options.step)) if e.manifest.rank == options.rank]
        return found[0]
    surveys = [store.survey() for store in run.stores()]
    for survey in surveys:
        for entry in survey.entries:
            if entry.manifest.rank == options.rank:
                return entry
    if any(survey.failures for survey in surveys):
        raise UsageError(f"no checkpoint of {options.run} can be used", hint="`resilient ls` says why")
    raise UsageError(f"there is no checkpoint in {options.run} yet")


@dataclass
class _ExportedCheckpoint:
    """The checkpoint that is exported, and the names of what its target cannot hold."""

    files: Files
    entry: Entry
    keys: tuple[bytes, ...] = field(repr=False)
    entropy: Entropy
    left_out: list[str] = field(default_factory=list)

    def write_ckpt(self, writer: FileWriter) -> None:
        """Stock's part of it, streamed: memory is a few blocks, whatever its size."""
        with opened(self.files, self.entry, self.keys) as blocks:
            write_stream(Sealing(), self.entropy, container.stock_part(blocks, self.left_out), writer)

    def write_safetensors(self, writer: FileWriter) -> None:
        """The same tensors, one in memory at a time; the checkpoint is read once for each element size."""
        tensors, texts = self._describe()
        writer.write(safetensors.header(tensors, texts))
        for item_bytes in safetensors.item_sizes(tensors):
            wanted = {tensor.name for tensor in tensors if tensor.item_bytes == item_bytes}
            self._copy(wanted, writer)

    def _describe(self) -> tuple[list[TensorSpec], dict[str, str]]:
        """What there is to write, and the texts."""
        tensors: list[TensorSpec] = []
        texts: dict[str, bytearray] = {}

        def sink(name: str, dtype: str, dims: tuple[int, ...], size: int, section: int) -> memoryview | None:
            if section != 0:
                return None
            if dtype == "str":
                texts[name] = bytearray(size)
                return memoryview(texts[name])
            if dtype not in safetensors.DTYPES or name == safetensors.METADATA:
                self.left_out.append(name)
            else:
                tensors.append(TensorSpec(name, dtype, dims, size))
            return None

        read_sealed(self.files, self.entry, self.keys, sink)
        return tensors, {name: _text(data) for name, data in texts.items()}

    def _copy(self, wanted: set[str], writer: FileWriter) -> None:
        """Writes the content of these tensors, in the order in which they come."""
        held: list[bytearray] = []

        def write_held() -> None:
            # It is whole as soon as the next one is asked for.
            while held:
                writer.write(held.pop())

        def sink(name: str, dtype: str, dims: tuple[int, ...], size: int, section: int) -> memoryview | None:
            write_held()
            if section != 0 or name not in wanted:
                return None
            held.append(bytearray(size))
            return memoryview(held[0])

        read_sealed(self.files, self.entry, self.keys, sink)
        write_held()


def _text(data: bytearray) -> str:
    """Text as stock keeps it, UTF-32; an empty one is a single NUL."""
    return data.decode("utf-32-le", "replace").rstrip("\0")
