"""What must be true of a store's folder, whatever happens to it: the model that the lives are held against.

The model knows bytes, not formats. It remembers every checkpoint that was once seen whole, byte for byte. One
is *intact* as long as both of its files hold those very bytes under their names, and *promised* from the
moment it is reported as saved until somebody spoils it or retention may take it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from store_world import CANARY, DIRECTORY, QUARANTINE, make_store

from chaos.invariants import demand
from resilient.codec.tensors import Record, info_record
from resilient.config import Sealing
from resilient.errors import CorruptError
from resilient.store import layout
from resilient.store.entry import Draft, Entry

LONG = [bytes(range(start, start + 32)) for start in (0, 100)]
SHORT = [bytes(range(start, start + 16)) for start in (40, 200)]
KEYS = [*LONG, *SHORT]
EVERY_KEY = Sealing("AES-GCM", KEYS[0], old_keys=tuple(KEYS[1:]))

_GCM_MAGIC = b"\xd8\x5e\x3a\x7f"
_GCM_HEADER_BYTES = 48
_GCM_NONCE = slice(28, 40)


def content(serial):
    """The tensor of the serial-th save: several small blocks, and the canary in each."""
    return (CANARY + b" %08d " % serial) * 8


def draft(serial, step, *, failure=False):
    """The serial-th save of a run, of any step."""
    return Draft(
        prefix="CKP",
        epoch=1 + (step - 1) // 10,
        step_in_epoch=1 + (step - 1) % 10,
        step=step,
        records=[
            Record("w", "Int8", (len(content(serial)),), content(serial)),
            info_record("serial", serial),
        ],
        extra=CANARY + b"%d" % serial,
        reason="exception" if failure else "schedule",
        failure=failure,
    )


def read(store, entry):
    """The serial that a checkpoint's content says, after checking that all of it is that save's."""
    tensors = {}

    def sink(name, dtype, dims, size_bytes, section):
        tensors[name] = bytearray(size_bytes)
        return memoryview(tensors[name])

    return serial_of(tensors, store.load(entry, sink))


def serial_of(tensors, extra):
    """The save that this content is, all of it."""
    serial = int.from_bytes(tensors["serial"], "little")
    same = (bytes(tensors["w"]), extra) == (content(serial), CANARY + b"%d" % serial)
    demand(same, "NeverLoadCorrupt", f"what was loaded as save {serial} is not what was saved")
    return serial


@dataclass(frozen=True)
class WholeCheckpoint:
    """A checkpoint as it was when it was seen whole for the first time."""

    entry: Entry
    data: bytes
    manifest: bytes

    @property
    def key_id(self):
        return self.entry.manifest.key_id


class WholeCheckpoints:
    """Every checkpoint of a run that was ever seen whole, by the serial of its save."""

    def __init__(self):
        self.whole: dict[int, WholeCheckpoint] = {}
        self.promised: set[int] = set()
        self.retired: set[int] = set()
        self.nonces: set[bytes] = set()
        self._read: dict[tuple[bytes, bytes], int] = {}

    def acknowledge(self, serial, entry, disk):
        """A save was reported: from now on it is promised."""
        whole = WholeCheckpoint(entry, disk.content(entry.path), disk.content(entry.manifest_path))
        self.whole[serial] = whole
        self.promised.add(serial)
        self._demand_new_nonces(whole.data)

    def intact(self, disk):
        """The serials of the checkpoints whose two files are what they were, newest first."""
        paths = set(disk.paths())
        return sorted((s for s, whole in self.whole.items() if _is_intact(whole, disk, paths)), reverse=True)

    def valid(self, disk):
        """The serials of what a process with every key can load, newest first; learns what is new.

        It must be exactly what is intact: nothing spoilt is believed, nothing good is refused.
        """
        reader = make_store(disk.restart(), sealing=EVERY_KEY, allow_plain=True)
        found = [self._serial(reader, entry, disk) for entry in reader.entries()]
        valid = [serial for serial in found if serial is not None]
        intact = self.intact(disk)
        demand(not set(valid) - set(intact), "NeverLoadCorrupt", f"{valid}, and intact are {intact}")
        demand(not set(intact) - set(valid), "RecoveryPreserves", f"{valid}, and intact are {intact}")
        demand(valid == intact, "FallbackToNewestValid", f"the order is {valid}")
        generations = {self.whole[serial].entry.generation for serial in valid}
        demand(len(generations) == len(valid), "FallbackToNewestValid", f"{valid} share a generation")
        return valid

    def in_doubt(self):
        """Whether something was saved while a manifest could not be read: its generation is a guess.

        A second guess, while the first one cannot be read and what made it one can, may be no better.
        """
        return any(whole.entry.generation > 2**19 for whole in self.whole.values())

    def spoil(self, disk):
        """Somebody has changed files: what is no longer intact is no longer promised."""
        self.promised &= set(self.intact(disk))

    def retire(self, surplus):
        """Retention may take these, now or when it is asked again."""
        self.promised -= surplus
        self.retired |= surplus

    def _serial(self, reader, entry, disk):
        files = disk.content(entry.manifest_path), disk.content(entry.path)
        if files in self._read:
            return self._read[files]
        try:
            serial = read(reader, entry)
        except CorruptError as error:
            known = any(whole.manifest == files[0] for whole in self.whole.values())
            demand(known, "PublishedNeverTorn", f"{entry.name}, which nobody spoilt: {error}")
            return None
        self._read[files] = serial
        self.whole.setdefault(serial, WholeCheckpoint(entry, files[1], files[0]))
        return serial

    def _demand_new_nonces(self, data):
        """No block of a new file has a nonce that was used before, whichever process used it."""
        start = 0
        while data[start : start + 4] == _GCM_MAGIC:
            nonce = data[start:][_GCM_NONCE]
            demand(nonce not in self.nonces, "NonceUnique", nonce.hex())
            self.nonces.add(nonce)
            start += _GCM_HEADER_BYTES + int.from_bytes(data[start + 44 : start + 48], "little")


def _is_intact(whole, disk, paths):
    entry = whole.entry
    here = entry.path in paths and entry.manifest_path in paths
    return here and (disk.content(entry.path), disk.content(entry.manifest_path)) == (
        whole.data,
        whole.manifest,
    )


def leftovers(disk, key_ids, theirs):
    """What no recovery should have left: temporaries, and data files that nobody vouches for.

    A temporary manifest that was sealed with a key nobody gave (``key_ids`` are the given ones; None is
    among them when unencrypted ones are trusted) stays, and so does the data file that it may name as ours.
    """
    names = {path.name for path in disk.paths() if path.parent == DIRECTORY}
    temporary = set(filter(layout.is_temporary, names))
    locked = {name for name in temporary if _is_locked(disk, name, key_ids)}
    excused = locked | theirs | {layout.data_of(layout.final_of(name)) for name in locked}
    data = {name for name in names if name.endswith(layout.DATA_SUFFIX)}
    bare = {name for name in data if layout.manifest_of(name) not in names}
    return (temporary | bare) - excused


def _is_locked(disk, name, key_ids):
    """Whether it is a temporary manifest of a key that nobody gave; what can be read by nobody is not."""
    if not layout.final_of(name).endswith(layout.MANIFEST_SUFFIX):
        return False
    try:
        return json.loads(disk.content(DIRECTORY / name))["manifest"]["key_id"] not in key_ids
    except (ValueError, KeyError, TypeError):
        return False


def good_ones_set_aside(ledger, disk):
    """The serials of those in the quarantine to which nothing had happened: both files, under one stem."""
    there = {path: disk.content(path) for path in disk.paths() if path.parent == QUARANTINE}
    pairs = {
        (content, there.get(path.with_suffix(layout.MANIFEST_SUFFIX))) for path, content in there.items()
    }
    return {serial for serial, whole in ledger.whole.items() if (whole.data, whole.manifest) in pairs}
