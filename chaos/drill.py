"""resilient-chaos drill: proves on the user's own script that failures change nothing.

The script runs twice under ``resilient-run``, with one seed: once left alone, once with failures on the
way. The newest checkpoints of the two must hold the same parameters and optimizer state, bit for bit.

With ``--run-dir`` the run with failures stays, to be looked at. A file called ``drill`` in it says that it is
one of ours: the next drill replaces it, and never anything else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from chaos import sabotage
from chaos.sabotage import PlannedFault
from resilient import isolated
from resilient.codec.tensors import Sink
from resilient.command_parser import ShowVersion
from resilient.config import Sealing
from resilient.errors import EXIT_USAGE, ResilientError, UsageError
from resilient.host.entropy import SystemEntropy
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.state.snapshot import SECTION_KEPT
from resilient.store.entry import Entry
from resilient.store.opening import open_store

_MARK = "drill"


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; 0 when nothing was lost, 1 when something was."""
    parser = argparse.ArgumentParser(prog="resilient-chaos", description="Breaks training runs on purpose.")
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(dest="command", required=True)
    drill_parser = commands.add_parser("drill", help="run a script with failures, compare with a run without")
    drill_parser.add_argument(
        "--faults", default="100:SIGKILL,200:exception", help="STEP:FAULT,... (100:SIGKILL,200:exception)"
    )
    drill_parser.add_argument("--save-steps", type=int, default=40, help="a checkpoint every N steps (40)")
    keeping = drill_parser.add_mutually_exclusive_group()
    keeping.add_argument("--keep", action="store_true", help="keep the folders of both runs")
    keeping.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="leave the run with failures there, to be looked at"
    )
    drill_parser.add_argument("script")
    drill_parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if not Path(options.script).is_file():
        parser.error(f"there is no script {options.script}")
    try:
        faults = [PlannedFault.parse(text) for text in options.faults.split(",")]
    except ValueError as error:
        parser.error(str(error))
    try:
        if options.run_dir is not None:
            _make_room(options.run_dir)
    except ResilientError as error:
        return _say(f"{error}", EXIT_USAGE)
    folder = Path(tempfile.mkdtemp(prefix="resilient-drill-"))
    failing = options.run_dir or folder / "failing"
    try:
        return drill(folder, failing, [options.script, *options.arguments], faults, options.save_steps)
    finally:
        _clear_up(folder, options)


def _make_room(root: Path) -> None:
    """Removes what an earlier drill has left in this directory. Raises UsageError for anything else."""
    if root.is_symlink() or (root.exists() and (not root.is_dir() or _is_not_ours(root))):
        raise UsageError(f"{root} was not left by a drill", hint="name another --run-dir")
    if root.exists():
        # Raises BusyError while somebody works on it.
        RunDirectory(root, World()).lock().release()
        shutil.rmtree(root)
    root.mkdir(parents=True, mode=0o700)
    (root / _MARK).write_text("resilient-chaos drill has made this run, and replaces it the next time\n")


def _is_not_ours(root: Path) -> bool:
    return any(root.iterdir()) and not (root / _MARK).is_file()


def _clear_up(folder: Path, options: argparse.Namespace) -> None:
    if options.keep:
        _say(f"both runs are in {folder}")
        return
    shutil.rmtree(folder, ignore_errors=True)
    if options.run_dir is None:
        _say("the folders of both runs are removed again (--keep keeps them)")
    else:
        _say(f"the run with failures stays in {options.run_dir}; look at it:")
        _say(f"  {_tool()} ls {options.run_dir}")


def _tool() -> str:
    """``resilient``, as it can be called from here: the environment that runs us may not be activated."""
    beside = Path(sys.executable).with_name("resilient")
    if shutil.which("resilient") is None and beside.exists():
        return os.path.relpath(beside)
    return "resilient"


def drill(folder: Path, failing: Path, script: list[str], faults: list[PlannedFault], save_steps: int) -> int:
    """Runs both, the one with failures in ``failing``, compares, and says so in plain lines."""
    seed = int.from_bytes(SystemEntropy().token(3), "little")
    marks = folder / "marks"
    marks.mkdir()
    plan = ",".join(f"{fault.step}:{fault.kind}" for fault in faults)
    sabotaged = [sabotage.FILE, plan, str(marks), *script]

    _say("1. the script, left alone")
    if not _run(folder / "alone", seed, save_steps, script):
        return _say("the script fails by itself; the drill needs one that works", 1)
    _say(f"2. the same, failing on purpose: {' and '.join(map(_words, faults))}")
    if not _run(failing, seed, save_steps, sabotaged):
        return _say("FAILED: the run did not come to its end", 1)
    _give_to(failing, script)
    struck = len(list(marks.iterdir()))
    if struck != len(faults):
        return _say(f"only {struck} of {len(faults)} failures happened: are there so many steps?", 1)
    return _compare(folder / "alone", failing)


def _give_to(root: Path, script: list[str]) -> None:
    """The run is the script's own, and complete for it: who made it fail on the way is nobody's concern."""
    directory = RunDirectory(root, World())
    lock = directory.lock()
    try:
        directory.write(replace(directory.open(), command=tuple(script)))
    finally:
        lock.release()


def _compare(alone: Path, failing: Path) -> int:
    wanted, found = _digest(alone), _digest(failing)
    _say(f"weights and optimizer state, left alone:  {wanted}")
    _say(f"weights and optimizer state, with failures: {found}")
    if wanted != found:
        return _say("FAILED: they differ", 1)
    return _say("identical: nothing was lost")


def _run(root: Path, seed: int, save_steps: int, words: list[str]) -> bool:
    directory = RunDirectory(root, World())
    directory.open({"seed": seed})
    options = ["--run-dir", str(root), "--no-encrypt", "--save-steps", str(save_steps), "--backoff", "0.2:2"]
    command = [*isolated.command("supervisor.command.cli"), *options, *words]
    return subprocess.run(command, check=False).returncode == 0


def _digest(root: Path) -> str:
    """A hash over the newest checkpoint's tensors, by name; what callbacks hold may be times."""
    world = World()
    record = RunDirectory(root, world).read()
    assert record is not None
    store = open_store(root, world, Sealing(), record.run_id)
    tensors: dict[tuple[int, str], bytearray] = {}

    def make_sink(entry: Entry) -> Sink:
        tensors.clear()

        def sink(name: str, dtype: str, dims: tuple[int, ...], size_bytes: int, section: int) -> memoryview:
            tensors[section, name] = bytearray(size_bytes)
            return memoryview(tensors[section, name])

        return sink

    loaded = store.load_newest(make_sink)
    assert loaded is not None, "a run that is complete has a checkpoint"
    digest = hashlib.sha256()
    for (section, name), data in sorted(tensors.items()):
        if section == SECTION_KEPT:
            continue
        digest.update(f"{section} {name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def _words(fault: PlannedFault) -> str:
    return f"{fault.kind} at step {fault.step}"


def _say(text: str, status: int = 0) -> int:
    print(f"drill: {text}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
