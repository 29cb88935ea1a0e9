"""From options to a running supervisor: the run's directory, its lock, its record and its key."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from resilient.codec import keys
from resilient.config import Environment, Sealing, WorkerConfig
from resilient.errors import EXIT_STOPPED, BusyError, StorageError, UnusableError, UsageError
from resilient.host.cgroup import ControlGroups, born_at
from resilient.host.files import DiskLock, FileLock
from resilient.host.world import World
from resilient.journal.base import JOURNAL_VERSION
from resilient.journal.events import (
    StopRequested,
    SupervisorEnded,
    SupervisorLost,
    SupervisorStarted,
    WarningGiven,
)
from resilient.run import rundir
from resilient.run.locks import held
from resilient.run.places import Places, find_places
from resilient.run.record_seal import Seal
from resilient.run.rundir import FoundRecord, RunDirectory, RunRecord
from supervisor.command import naming
from supervisor.command.admission import Admission, Admitted
from supervisor.command.arguments import KeySource, Options
from supervisor.command.other_writers import demand_ours
from supervisor.edges.journal_writer import JournalWriter
from supervisor.edges.wards import Wards
from supervisor.edges.write_queue import WriteQueue
from supervisor.group.orphans import mark_of
from supervisor.group.worker_processes import ProcessWorkers
from supervisor.loop.loop import Supervisor
from supervisor.loop.plan import Plan
from supervisor.telling.console import Console
from supervisor.telling.story import Story

_LEFTOVER_S = 10.0
_LEAST_DESCRIPTORS = 64
_WRITE_S = 60.0
"""As long as the disk takes something; one that takes nothing is not waited for."""


def supervise(options: Options, console: Console) -> int:
    """Runs what the options name, to its end; the exit status."""
    _demand_linux()
    _demand_descriptors()
    directory = RunDirectory(options.run_dir.absolute(), World())
    try:
        lock = _lock(directory)
        try:
            demand_ours(options.run_dir, console.warn)
            if options.fresh:
                _make_way(directory, options, console)
                lock.release()
                lock = directory.lock()
            claimed = directory.look(())
            # Nobody can have changed what this process makes now.
            found = claimed or FoundRecord(directory.open(), Seal.SEALED)
            record = found.record
            if record.status == rundir.ADOPTING:
                raise UsageError(
                    f"what {options.run_dir} is to go on from has not been adopted to the end",
                    hint="run `resilient adopt` again",
                )
            _demand_same(record, options)
            sealing = _sealing(options.key, record, console)
            admission = _admission(directory, sealing, options, console)
            if claimed is not None:
                found = directory.look(admission.keys) or found
            says_complete = found.record.status == rundir.COMPLETE and not options.extend
            if says_complete and admission.believes_complete(found):
                _say_complete(console, options)
                return 0
            if record.status == rundir.RUNNING:
                # We hold its lock: it is not there any more, and has not said so.
                console.warn("the supervisor of this run was killed the last time, or the machine went down")
            admitted = admission.admit(found, options.program.words)
            assert isinstance(lock, DiskLock)
            return _run(admitted, lock, sealing, options, console)
        finally:
            lock.release()
    except StorageError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"the run directory {options.run_dir} cannot be used: {error}", hint="name another --run-dir"
            ) from error
        raise


def _lock(directory: RunDirectory) -> FileLock:
    """Takes the run. Waits for the writer process of a dead supervisor, but not for a living holder."""
    end_s = time.monotonic() + _LEFTOVER_S
    while True:
        try:
            return directory.lock()
        except BusyError as error:
            if not error.pid or born_at(error.pid) is not None or time.monotonic() > end_s:
                raise


def _admission(directory: RunDirectory, sealing: Sealing, options: Options, console: Console) -> Admission:
    home = Environment.read().config_home
    # Without a script there are no checkpoints, and a record that is complete has nothing beside it.
    resumes = options.program.kind != "command"
    return Admission(directory, sealing, options.accept, home, console.warn, World(), resumes)


def _run(admitted: Admitted, lock: DiskLock, sealing: Sealing, options: Options, console: Console) -> int:
    # In this order: they are forked, and an outlet has threads.
    write_queue = WriteQueue([lock.descriptor])
    wards = Wards(options.grace_s)
    with console.with_outlets() as unhurried:
        try:
            return _watch_over(admitted, write_queue, wards, sealing, options, unhurried)
        finally:
            wards.close()
            if unwritten := write_queue.close(_WRITE_S):
                lock.leave_to_child()
                unhurried.warn(unwritten)


def _watch_over(
    admitted: Admitted,
    write_queue: WriteQueue,
    wards: Wards,
    sealing: Sealing,
    options: Options,
    console: Console,
) -> int:
    record, world = admitted.record, World()
    story = Story(console, world.clock, options.run_dir)
    write_queue.report_to(story.trouble)
    directory = admitted.directory.kept_by(write_queue.replace)
    admitted.floor.begin()
    journal = JournalWriter(directory.journal, world.clock, story.trouble, write_queue)

    def warn(text: str) -> None:
        journal.write(WarningGiven(text))
        story.trouble(text)

    for outlet in console.outlets or ():
        outlet.report_to(warn)
    config = WorkerConfig(
        run_id=record.run_id,
        directory=directory.root,
        seed=record.seed,
        world_size=record.world_size,
        save=options.save,
        keep=options.keep,
        sealing=sealing,
        accepted=record.accepted,
        mirror=options.mirror,
        take_from_script=options.take_from_script,
        extend=options.extend,
    )
    encrypted = f"encrypted with {sealing.mode}" if sealing.mode else "NOT encrypted"
    going_on = "going on with the run" if record.attempts else "new run"
    console.say(f"{going_on} in {options.run_dir}; checkpoints are {encrypted}")
    if options.program.core_dumps and sealing.holds_key:
        console.warn("--core-dumps: a core dump of the training holds the key; guard it like the key")
    words = tuple(options.program.words)
    journal.write(SupervisorStarted(record.run_id, words, os.getpid(), JOURNAL_VERSION))
    if record.status == rundir.RUNNING:
        journal.write(SupervisorLost(attempt=record.attempts))
    plan = Plan(
        config,
        options.restart,
        options.grace_s,
        options.standby,
        replace(options.limits, mute=options.program.kind == "command"),
        partial(admitted.floor.hear, warn=warn),
        admitted.keys,
        admitted.proven,
        bool(record.attempts) and record.saved,
        options.accept.rollback,
    )
    mark = mark_of(directory)
    workers = ProcessWorkers(
        options.program,
        warn,
        lambda: ControlGroups.available(mark),
        console.outlets,
        write_queue,
        wards=wards,
    )
    try:
        if number := workers.end_orphans(options.grace_s):
            name = signal.Signals(number).name
            journal.write(StopRequested(name))
            console.end(f"stopped by {name} before anything was launched; the same command goes on")
            journal.write(SupervisorEnded(EXIT_STOPPED))
            return EXIT_STOPPED
        return Supervisor(directory, plan, workers, story, journal, world).run()
    finally:
        admitted.floor.close()
        journal.close()


def _demand_linux() -> None:
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        raise UsageError(
            "resilient-run needs Linux 5.4 or newer", hint="CheckpointMonitor works in a plain python process"
        )


def _demand_descriptors() -> None:
    """With fewer the supervisor would fail somewhere on its way, with a message about some file."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < _LEAST_DESCRIPTORS:
        raise UsageError(
            f"only {most} files may be open at once, and resilient-run needs {_LEAST_DESCRIPTORS}",
            hint="ulimit -n 1024",
        )


def _demand_same(record: RunRecord, options: Options) -> None:
    """A run goes on with, or is complete for, what it was begun with. Raises UsageError."""
    program, run_dir = options.program, options.run_dir
    before, now = naming.told(record.command), naming.told(program.words)
    is_over = record.status == rundir.COMPLETE and not options.extend
    if is_over and not naming.is_same(program, record.command):
        raise UsageError(
            f"the run in {run_dir} is complete, with another command ({before}); nothing was run now ({now})",
            hint="to train on with it: --extend; to start anew: --fresh --archive, or another --run-dir",
        )
    # Whoever names the directory knows what is in it: a script may have been moved.
    if not options.is_named and not naming.is_same_script(program, record.command):
        raise UsageError(
            f"{run_dir} holds the run of another script ({before})",
            hint=f"name another --run-dir; to go on with that run all the same: --run-dir {run_dir}",
        )


def _say_complete(console: Console, options: Options) -> None:
    console.end(
        f"the run in {options.run_dir} is complete, there is nothing left to do; "
        "to train more epochs: --extend; to start anew: --fresh --archive, or another --run-dir"
    )


def _make_way(directory: RunDirectory, options: Options, console: Console) -> None:
    """--fresh: nothing may be in the way, or it is moved aside."""
    record = None
    # A damaged run.json, or checkpoints without one, are in the way too.
    with suppress(UnusableError):
        record = directory.read()
        if record is None:
            return
    if not options.archive:
        raise UsageError(
            f"{options.run_dir} holds a run already",
            hint="--fresh --archive moves it aside; without --fresh it is gone on with",
        )
    world, root = World(), directory.root
    places = find_places(world.files, root, record) if record is not None else Places.alone(root)
    # A worker that has outlived its supervisor may still be saving.
    with held(world, places, record.world_size if record is not None else 1):
        target = _free_name(root)
        _move_aside(root, target, options)
    console.say(f"the run that was in {options.run_dir} is now in {target.name}, beside it")


def _move_aside(root: Path, target: Path, options: Options) -> None:
    """Raises UsageError where the run's directory stays where it is."""
    try:
        os.rename(root, target)
    except OSError as error:
        why = f"{options.run_dir} cannot be moved aside: {error.strerror}"
        if error.errno in (errno.EBUSY, errno.EXDEV) or os.path.ismount(root):
            why = f"{options.run_dir} cannot be moved aside: it is a mount point, or in use as one"
        raise UsageError(
            why, hint="name another --run-dir, a folder inside of it say, or move away yourself what is in it"
        ) from error


def _free_name(root: Path) -> Path:
    names = (root.with_name(f"{root.name}.archived-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


# The key


def _sealing(source: KeySource, record: RunRecord, console: Console) -> Sealing:
    """How this run is sealed from now on. Raises KeySourceError for what is no key."""
    # Older keys, of whatever length: the mode they were used in stands in the manifests.
    old = tuple(map(keys.from_any_file, source.old_files))
    if source.mode is None:
        return Sealing(old_keys=old)
    return Sealing(source.mode, _key(source, source.mode, bytes.fromhex(record.salt), console), old)


def _key(source: KeySource, mode: str, salt: bytes, console: Console) -> bytes:
    if source.file is not None:
        return keys.from_file(source.file, mode)
    if source.command is not None:
        return keys.from_command(source.command, mode)
    if source.passphrase_file is not None:
        return keys.from_passphrase_file(source.passphrase_file, salt, mode)
    key, path, created = keys.default_key(Environment.read().config_home, mode)
    if created:
        console.warn(f"made a key for your checkpoints: {path}; without it they cannot be read, keep a copy")
    return key
