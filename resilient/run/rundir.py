"""The run directory: the files of one run beside its checkpoints.

    run.json        the identity of the run (RunRecord). Only the holder of the lock writes it, whole and
                    durably. It is sealed with the run's key, if there is one (``record_seal``, ``belief``)
    lock            the one supervisor, or the one plain monitor, that works on the run holds it; the content
                    names that process (``lock_owner``)
    journal.jsonl   every event of the run
    logs/attempt_0001/rank_0.log, quarantine/, checkpoint/...

A directory with checkpoints of ours but without a readable run.json is rejected: a new run_id would make all
of them foreign, and the run would silently start from zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resilient.codec.keys import KEY_BYTES, SALT_BYTES
from resilient.errors import BusyError, StorageError, UnusableError
from resilient.host import inside
from resilient.host.files import FileLock, Files
from resilient.host.world import World
from resilient.run import lock_owner, record_seal
from resilient.run.record_seal import Seal
from resilient.store import commit, layout
from resilient.store.patience import locked_soon

KIND = "run"  # the seal covers it, beside the content

_LIMIT_BYTES = 1024 * 1024
_MAX_RANKS = 2**20

# The errors that JSON of another shape may cause: not a number, a missing field, another type, an infinite
# number, brackets nested too deep.
_NONSENSE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)

NEW = "new"
RUNNING = "running"
STOPPED = "stopped"
FAILED = "failed"
COMPLETE = "complete"
ADOPTING = "adopting"  # `resilient adopt` is running, or was interrupted before it committed its checkpoint


@dataclass(frozen=True)
class RunRecord:
    """The identity of a run. Its workers seed every random stream with ``seed``, which is chosen once.

    ``salt`` (hexadecimal) goes with a passphrase. ``key_id`` names the key without revealing it, ``key_ids``
    all keys that the run was ever configured with (a script's own key is none of them), and ``plain`` says
    whether it was ever configured to save without one. ``checkpoints`` are the directories in which the
    script keeps its checkpoints, and ``home`` is the run's directory at the time that was written; ``places``
    says what a move or a copy does to them. ``accepted`` are the digests of unencrypted manifests that the
    user accepted as this run's. ``saved``: the run has acknowledged a checkpoint; from then on it starts from
    zero only if the user accepts that.
    """

    run_id: str
    created: float
    seed: int
    salt: str
    world_size: int = 1
    key_id: str | None = None
    mode: str | None = None
    plain: bool = False
    status: str = NEW
    command: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    attempts: int = 0
    home: str | None = None
    key_ids: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    saved: bool = False


@dataclass(frozen=True)
class FoundRecord:
    """A record on disk, the state of its seal under the keys at hand, and the ids of the sealing keys."""

    record: RunRecord
    seal: Seal
    sealed_by: tuple[str, ...] = ()


Keep = Callable[[Path, bytes], None]
"""Replaces a file's content durably: at once (it raises StorageError), or later but in order."""


class RunDirectory:
    """One run's directory on disk. ``keep`` writes its files; with None this process does, synchronously.

    Its record is sealed with each of ``keys``; without keys it has no seal.
    """

    def __init__(
        self, root: Path, world: World, keep: Keep | None = None, *, keys: Iterable[bytes] = ()
    ) -> None:
        self.root = root
        inside.confine(root)
        self.keep = keep
        self._world = world
        self._keys = tuple(keys)
        self._files = world.files
        self._clock = world.clock
        self._entropy = world.entropy

    def sealed_with(self, keys: Iterable[bytes]) -> RunDirectory:
        """The same directory, with these keys to seal its record."""
        return RunDirectory(self.root, self._world, self.keep, keys=keys)

    def kept_by(self, keep: Keep) -> RunDirectory:
        """The same directory, with ``keep`` to write its files."""
        return RunDirectory(self.root, self._world, keep, keys=self._keys)

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    def log(self, attempt: int, rank: int = 0) -> Path:
        """The file with an attempt's output."""
        return self.root / "logs" / f"attempt_{attempt:04d}" / f"rank_{rank}.log"

    @property
    def saver_log(self) -> Path:
        """The file with the saver's error output."""
        return self.root / "logs" / "saver.log"

    def lock(self) -> FileLock:
        """Locks the run for this process. Raises BusyError with the pid of the holder."""
        self._files.make_directory(self.root)
        path = self.root / "lock"
        try:
            return locked_soon(self._files, path, lock_owner.own_words())
        except BusyError:
            pid, here = self._owner(path)
            who = f"process {pid}" + ("" if here else " on another machine") if pid else "another process"
            raise BusyError(
                f"{self.root} is in use by {who}", pid=pid, hint="stop it first, or name another --run-dir"
            ) from None

    def _owner(self, path: Path) -> tuple[int, bool]:
        try:
            return lock_owner.run_owner(self._files.read(path, lock_owner.LIMIT_BYTES))
        except (StorageError, FileNotFoundError):
            return 0, True

    def read(self) -> RunRecord | None:
        """The run's record, unproven; None when the directory holds no run yet.

        Raises UnusableError when it cannot be decoded, or is missing although there are checkpoints.
        """
        found = self.look(())
        return found.record if found is not None else None

    def look(self, keys: Iterable[bytes]) -> FoundRecord | None:
        """The run's record, and whether one of these keys vouches for it. Raises as :meth:`read`."""
        try:
            data = self._files.read(self.root / "run.json", _LIMIT_BYTES)
        except FileNotFoundError:
            self._demand_no_checkpoints()
            return None
        try:
            content = json.loads(data)
            return FoundRecord(
                _decode(content), record_seal.check(content, keys, KIND), record_seal.sealed_by(content)
            )
        except _NONSENSE as error:
            raise UnusableError(
                f"{self.root / 'run.json'} is damaged: {error}",
                hint="restore it from a copy; to start anew, move the directory aside (--fresh --archive)",
            ) from error

    def open(self, template: Mapping[str, Any] | None = None) -> RunRecord:
        """The run's record; writes a new one durably when there is none. The caller holds the lock.

        Raises UnusableError when the keys of this directory do not vouch for an existing record.
        """
        found = self.look(self._keys)
        if found is not None:
            if self._keys and found.seal is not Seal.SEALED:
                raise UnusableError(f"somebody without the run's key changed {self.root / 'run.json'}")
            return found.record
        record = RunRecord(
            run_id=self._entropy.token(16).hex(),
            created=self._clock.now(),
            # MindSpore and NumPy take a seed below 2**32, and some of their parts one below 2**31.
            seed=int.from_bytes(self._entropy.token(4), "little") & 0x7FFF_FFFF,
            salt=self._entropy.token(SALT_BYTES).hex(),
            home=str(self.root.absolute()),
        )
        return self.write(replace(record, **(template or {})))

    def write(self, record: RunRecord) -> RunRecord:
        """Writes the run's record durably."""
        # Through JSON first: tuples become lists, so the seal covers what a reader decodes.
        content = json.loads(json.dumps(asdict(record)))
        data = (json.dumps(record_seal.seal(content, self._keys, KIND), indent=2) + "\n").encode()
        (self.keep or self._replace)(self.root / "run.json", data)
        return record

    def _replace(self, path: Path, data: bytes) -> None:
        self._files.make_directory(self.root)
        commit.rewrite(self._world, path, data)

    def _has_checkpoints(self) -> bool:
        """Whether the directory itself holds checkpoints, of any rank."""
        return has_manifests(self._files, self.root)

    def _demand_no_checkpoints(self) -> None:
        if self._has_checkpoints():
            raise UnusableError(
                f"{self.root} holds checkpoints, but no run.json, which says whose they are",
                hint="restore run.json from a copy, or name another directory (--run-dir); to start anew, "
                "move it aside (--fresh --archive)",
            )


def has_manifests(files: Files, place: Path) -> bool:
    """Whether a place holds any manifest, of any rank, run or key."""
    checkpoints = place / "checkpoint"
    ranks = [checkpoints / name for name in files.names(checkpoints) if name.startswith("rank_")]
    return any(
        name.endswith(layout.MANIFEST_SUFFIX) and not layout.is_temporary(name)
        for rank in ranks
        for name in files.names(rank)
    )


def _decode(content: Any) -> RunRecord:
    """A record from JSON; ignores fields of later versions."""
    if not isinstance(content, dict):
        raise TypeError("it is no JSON object")
    known = {name: content[name] for name in RunRecord.__dataclass_fields__ if name in content}
    for name, value in known.items():
        if not _KINDS[name](value):
            raise ValueError(f"{name} makes no sense")
    for name in ("command", "checkpoints", "key_ids", "accepted"):
        known[name] = tuple(known.get(name, ()))
    return RunRecord(**known)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    """Whether a value can be an argument of a command or the name of a file."""
    return isinstance(value, str) and "\0" not in value


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_salt(value: Any) -> bool:
    return len(bytes.fromhex(value)) >= SALT_BYTES


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "run_id": _is_text,
    "created": lambda value: type(value) in (int, float) and abs(value) < 2**53,
    "seed": _is_count,
    "salt": _is_salt,
    "world_size": lambda value: _is_count(value) and 0 < value <= _MAX_RANKS,
    "key_id": _is_text_or_none,
    "mode": lambda value: value is None or value in KEY_BYTES,
    "plain": lambda value: isinstance(value, bool),
    "status": _is_text,
    "command": _are_texts,
    "checkpoints": _are_texts,
    "attempts": _is_count,
    "key_ids": _are_texts,
    "accepted": _are_texts,
    "saved": lambda value: isinstance(value, bool),
    "home": lambda value: value is None or _is_name(value),
}
