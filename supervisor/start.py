"""From options to a running supervisor: the run's directory, its lock, its record and its key."""

from __future__ import annotations

import errno
import os
import signal
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

from resilient.codec import keys
from resilient.config import Environment, Sealing, WorkerConfig
from resilient.errors import EXIT_STOPPED, StorageError, UnusableError, UsageError
from resilient.host.cgroup import Groups
from resilient.host.world import World
from resilient.store import rundir
from resilient.store.rundir import RunDirectory, RunRecord
from supervisor.arguments import KeySource, Options
from supervisor.console import Console
from supervisor.journal import Journal
from supervisor.loop import Supervisor
from supervisor.orphans import mark_of
from supervisor.plan import Plan
from supervisor.story import Story
from supervisor.workers import ProcessWorkers


def supervise(options: Options, console: Console) -> int:
    """Runs what the options name, to its end; the exit status."""
    _demand_linux()
    directory = RunDirectory(options.run_dir.absolute(), World())
    try:
        lock = directory.lock()
        try:
            if options.fresh:
                _make_way(directory, options, console)
                lock.release()
                lock = directory.lock()
            record = directory.open()
            if record.status == rundir.ADOPTING:
                raise UsageError(
                    f"what {options.run_dir} is to go on from has not been adopted to the end",
                    hint="run `resilient adopt` again",
                )
            if record.status == rundir.COMPLETE:
                _say_complete(console, options)
                return 0
            if record.status == rundir.RUNNING:
                # We hold its lock: it is not there any more, and has not said so.
                console.warn("the supervisor of this run was killed the last time, or the machine went down")
            sealing = _sealing(options.key, record, directory, console)
            record = _keep_record(directory, record, sealing, options)
            return _run(directory, record, sealing, options, console)
        finally:
            lock.release()
    except StorageError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"the run directory {options.run_dir} cannot be used: {error}", hint="name another --run-dir"
            ) from error
        raise


def _run(
    directory: RunDirectory, record: RunRecord, sealing: Sealing, options: Options, console: Console
) -> int:
    with console.with_outlets() as unhurried:
        return _watch_over(directory, record, sealing, options, unhurried)


def _watch_over(
    directory: RunDirectory, record: RunRecord, sealing: Sealing, options: Options, console: Console
) -> int:
    world = World()
    story = Story(console, world.clock, options.run_dir)
    journal = Journal(directory.journal, world.clock, story.trouble)

    def warn(text: str) -> None:
        journal.write("warning", text=text)
        story.trouble(text)

    for outlet in console.outlets or ():
        outlet.complain = warn
    config = WorkerConfig(
        run_id=record.run_id,
        directory=directory.root,
        seed=record.seed,
        world_size=record.world_size,
        save=options.save,
        keep=options.keep,
        sealing=sealing,
        allow_plain=record.plain,
        mirror=options.mirror,
    )
    encrypted = f"encrypted with {sealing.mode}" if sealing.mode else "NOT encrypted"
    going_on = "going on with the run" if record.attempts else "new run"
    console.say(f"{going_on} in {options.run_dir}; checkpoints are {encrypted}")
    journal.write("run", run_id=record.run_id, command=list(options.program.words), pid=os.getpid())
    if record.status == rundir.RUNNING:
        journal.write("supervisor_lost", attempt=record.attempts)
    plan = Plan(config, options.restart, options.grace_s, options.standby, options.limits)
    mark = mark_of(directory)
    workers = ProcessWorkers(options.program, warn, lambda: Groups.available(mark), console.outlets)
    try:
        if number := workers.end_orphans(options.grace_s):
            name = signal.Signals(number).name
            journal.write("stop_requested", signal=name)
            console.end(f"stopped by {name} before anything was launched; the same command goes on")
            journal.write("ended", status=EXIT_STOPPED)
            return EXIT_STOPPED
        return Supervisor(directory, plan, workers, story, journal, world).run()
    finally:
        journal.close()


def _demand_linux() -> None:
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        raise UsageError(
            "resilient-run needs Linux 5.4 or newer", hint="CheckpointMonitor works in a plain python process"
        )


def _say_complete(console: Console, options: Options) -> None:
    console.end(
        f"the run in {options.run_dir} is complete, there is nothing left to do; "
        "to start anew: --fresh --archive, or another --run-dir"
    )


def _make_way(directory: RunDirectory, options: Options, console: Console) -> None:
    """--fresh: nothing may be in the way, or it is moved aside."""
    # A damaged run.json, or checkpoints without one, are in the way too.
    try:
        in_the_way = directory.read() is not None
    except UnusableError:
        in_the_way = True
    if not in_the_way:
        return
    if not options.archive:
        raise UsageError(
            f"{options.run_dir} holds a run already",
            hint="--fresh --archive moves it aside; without --fresh it is gone on with",
        )
    target = _free_name(directory.root)
    os.rename(directory.root, target)
    console.say(f"the run that was in {options.run_dir} is now in {target.name}, beside it")


def _free_name(root: Path) -> Path:
    names = (root.with_name(f"{root.name}.archived-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


# The key


def _sealing(source: KeySource, record: RunRecord, directory: RunDirectory, console: Console) -> Sealing:
    """The key that this run is sealed with. Raises KeySourceError, and UnusableError for another key."""
    # Older keys, of whatever length: the mode they were used in stands in the manifests.
    old = tuple(map(keys.from_any_file, source.old_files))
    if source.mode is None:
        return Sealing(old_keys=old)
    key = _key(source, source.mode, bytes.fromhex(record.salt), console)
    known = {keys.key_id(key), *map(keys.key_id, old)}
    if record.key_id is not None and record.key_id not in known and directory.has_checkpoints():
        raise UnusableError(
            f"the run's checkpoints were made with the key {record.key_id}, not with {keys.key_id(key)}",
            hint="give that key, with --old-key-file if a new one shall replace it; nothing was changed",
        )
    return Sealing(mode=source.mode, key=key, old_keys=old)


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


def _keep_record(directory: RunDirectory, record: RunRecord, sealing: Sealing, options: Options) -> RunRecord:
    key_id = keys.key_id(sealing.key) if sealing.key is not None else None
    plain = record.plain or sealing.mode is None
    words = options.program.words
    changed = replace(record, key_id=key_id, mode=sealing.mode, plain=plain, command=words)
    return directory.write(changed) if changed != record else record
