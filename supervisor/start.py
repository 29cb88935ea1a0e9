"""From options to a running supervisor: the run's directory, its lock, its record and its key."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import psutil

from resilient.codec import keys
from resilient.config import Environment, Sealing, WorkerConfig
from resilient.errors import EXIT_STOPPED, BusyError, StorageError, UnusableError, UsageError
from resilient.host.cgroup import Groups
from resilient.host.files import DiskLock, Lock
from resilient.host.world import World
from resilient.store import rundir
from resilient.store.locks import held
from resilient.store.places import Places, find_places
from resilient.store.reach import Reach, look
from resilient.store.rundir import RunDirectory, RunRecord
from supervisor import naming
from supervisor.arguments import KeySource, Options
from supervisor.console import Console
from supervisor.journal import Journal
from supervisor.loop import Supervisor
from supervisor.orphans import mark_of
from supervisor.others import demand_ours
from supervisor.plan import Plan
from supervisor.scribe import Scribe
from supervisor.story import Story
from supervisor.workers import ProcessWorkers

_LEFTOVER_S = 10.0
_WRITE_S = 60.0
"""As long as the disk takes something; one that takes nothing is not waited for."""


def supervise(options: Options, console: Console) -> int:
    """Runs what the options name, to its end; the exit status."""
    _demand_linux()
    directory = RunDirectory(options.run_dir.absolute(), World())
    try:
        lock = _lock(directory)
        try:
            demand_ours(options.run_dir, console.warn)
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
            _demand_same(record, options)
            if record.status == rundir.COMPLETE:
                _say_complete(console, options)
                return 0
            if record.status == rundir.RUNNING:
                # We hold its lock: it is not there any more, and has not said so.
                console.warn("the supervisor of this run was killed the last time, or the machine went down")
            sealing = _sealing(options.key, record, console)
            record = _keep_record(directory, record, sealing, options, console)
            assert isinstance(lock, DiskLock)
            return _run(directory, lock, record, sealing, options, console)
        finally:
            lock.release()
    except StorageError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"the run directory {options.run_dir} cannot be used: {error}", hint="name another --run-dir"
            ) from error
        raise


def _lock(directory: RunDirectory) -> Lock:
    """Takes the run. A dead supervisor's desk may still write, and is waited for; a living holder is not."""
    end_s = time.monotonic() + _LEFTOVER_S
    while True:
        try:
            return directory.lock()
        except BusyError as error:
            if not error.pid or _lives(error.pid) or time.monotonic() > end_s:
                raise


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _run(
    directory: RunDirectory,
    lock: DiskLock,
    record: RunRecord,
    sealing: Sealing,
    options: Options,
    console: Console,
) -> int:
    # In this order: it is forked, and an outlet has threads.
    scribe = Scribe([lock.descriptor])
    with console.with_outlets() as unhurried:
        try:
            return _watch_over(directory, scribe, record, sealing, options, unhurried)
        finally:
            if unwritten := scribe.close(_WRITE_S):
                lock.leave_to_child()
                unhurried.warn(unwritten)


def _watch_over(
    directory: RunDirectory,
    scribe: Scribe,
    record: RunRecord,
    sealing: Sealing,
    options: Options,
    console: Console,
) -> int:
    world = World()
    story = Story(console, world.clock, options.run_dir)
    scribe.complain = story.trouble
    directory = RunDirectory(directory.root, world, scribe.replace)
    journal = Journal(directory.journal, world.clock, story.trouble, scribe)

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
    if options.program.core_dumps and sealing.mode:
        console.warn("--core-dumps: a core dump of the training holds the key; guard it like the key")
    journal.write("run", run_id=record.run_id, command=list(options.program.words), pid=os.getpid())
    if record.status == rundir.RUNNING:
        journal.write("supervisor_lost", attempt=record.attempts)
    limits = replace(options.limits, mute=options.program.kind == "command")
    plan = Plan(config, options.restart, options.grace_s, options.standby, limits)
    mark = mark_of(directory)
    workers = ProcessWorkers(
        options.program,
        warn,
        lambda: Groups.available(mark),
        console.outlets,
        scribe,
        grace_s=options.grace_s,
    )
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


def _demand_same(record: RunRecord, options: Options) -> None:
    """A run goes on with, or is complete for, what it was begun with. Raises UsageError."""
    program, run_dir = options.program, options.run_dir
    before, now = naming.told(record.command), naming.told(program.words)
    if record.status == rundir.COMPLETE and not naming.is_same(program, record.command):
        raise UsageError(
            f"the run in {run_dir} is complete, with another command ({before}); nothing was run now ({now})",
            hint="to start anew: --fresh --archive, or another --run-dir",
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
        "to start anew: --fresh --archive, or another --run-dir"
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


def _demand_keys(reach: Reach, record: RunRecord, sealing: Sealing) -> None:
    """Raises UnusableError where the keys do not open what the run would go on from."""
    given = [keys.key_id(key) for key in (sealing.key, *sealing.old_keys) if key is not None]
    instead = f"not with {given[0]}" if given else "and none was given"
    hint = "give that key, with --old-key-file if a new one shall replace it; nothing was changed"
    if record.key_id not in (None, *given) and not reach.whole:
        wanted = reach.locked[0].key_id if reach.locked else record.key_id
        raise UnusableError(f"the run's checkpoints were made with the key {wanted}, {instead}", hint=hint)
    if reach.ahead is not None:
        name, wanted = reach.ahead.name, reach.ahead.key_id
        raise UnusableError(
            f"{name}, newer than what could be gone on from, was made with the key {wanted}, {instead}",
            hint=hint,
        )


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


def _keep_record(
    directory: RunDirectory, record: RunRecord, sealing: Sealing, options: Options, console: Console
) -> RunRecord:
    """Writes down who the run is now, and where. Raises UnusableError where the keys do not fit.

    It names the new key once nothing is left that needs another one.
    """
    world = World()
    places = find_places(world.files, directory.root, record)
    for other in places.others:
        # Only the script knows whether it will go there again, and the two cannot be told apart there.
        console.warn(
            f"this run is a copy, and {other.place} belongs to the run in {other.owner}: have the script "
            "keep its checkpoints elsewhere, or both runs go on with the same ones"
        )
    for remark in places.absences():
        console.warn(remark)
    reach = look(world, places, record, sealing)
    _demand_keys(reach, record, sealing)
    key_id = keys.key_id(sealing.key) if sealing.key is not None else None
    plain = record.plain or sealing.mode is None
    told = tuple(dict.fromkeys(one for one in (*record.key_ids, record.key_id, key_id) if one is not None))
    changed = replace(places.settle(record), plain=plain, key_ids=told, command=options.program.words)
    if reach.opens_with(key_id):
        changed = replace(changed, key_id=key_id, mode=sealing.mode)
    return directory.write(changed) if changed != record else record
