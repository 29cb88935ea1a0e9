"""A run to be rekeyed, on a simulated disk, and what must be true of it afterwards."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from store_world import (
    CANARY,
    DIRECTORY,
    KEY,
    OTHER_KEY,
    ROOT,
    SEALINGS,
    draft,
    make_store,
    names,
    read_back,
)

from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.codec.keys import key_id
from resilient.codec.tensors import info_record
from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.reseal import ORIGIN, Rekey
from resilient.run.rundir import RunDirectory, RunRecord
from resilient.store import layout, pins
from resilient.store.bare_file import OpeningKey, read_stock
from resilient.store.weights import write_weights

STEPS = 3
PINNED = 2
OLD = SEALINGS["AES-GCM"]
NEW = Sealing("AES-CBC", OTHER_KEY)
WEIGHTS = layout.network_directory(ROOT, 0)
WEIGHTS_FILE = WEIGHTS / "CKP_rank_0-network-1_3.ckpt"
RECORD = RunRecord("run-1", 0.0, 1, "00" * 16, key_id=key_id(KEY), mode="AES-GCM")

seeds = iter(range(1000, 10**9))


def world(disk):
    return World(disk, SteppedClock(), SeededEntropy(next(seeds)))


def a_run(old=OLD):
    """A disk with a run of three checkpoints, one of them pinned, and a weights file."""
    disk = SimulatedDisk()
    store = make_store(disk, sealing=old)
    for step in range(1, STEPS + 1):
        store.commit(draft(step, failure=step == 2, reason="exception" if step == 2 else "schedule"))
    pinned = next(entry for entry in store.entries() if entry.step == PINNED)
    pins.pin(disk, pinned, "0" * 16)
    write_weights(disk, WEIGHTS_FILE, [info_record("note", CANARY.decode())], old, SeededEntropy(7))
    id_of = key_id(old.key) if old.key is not None else None
    record = replace(RECORD, key_id=id_of, mode=old.mode, plain=old.mode is None)
    RunDirectory(ROOT, world(disk)).write(record)
    return disk


def both(old=OLD, new=NEW):
    """What a rekey works with: the new key, and the old one to read with."""
    return Sealing(new.mode, new.key, (old.key,) if old.key is not None else ())


def rekey(disk, sealing=None):
    sealing = sealing or both()
    stores = [make_store(disk, sealing=sealing, allow_plain=True)]
    directory = RunDirectory(ROOT, world(disk))
    return list(Rekey(world(disk), sealing, stores).run(directory, directory.read(), [WEIGHTS]))


def facts(entry):
    """What must be the same of a checkpoint before and after."""
    made = entry.manifest
    info = {name: value for name, value in made.info.items() if name != ORIGIN}
    same = made.generation, made.step, made.epoch, made.step_in_epoch, made.reason, made.failure, made.created
    return (*same, made.run_id, made.prefix, made.plain_bytes, tuple(info.items()))


def is_chain(entries):
    """Whether each checkpoint names the one before as its parent."""
    return all(child.manifest.parent == parent.digest for child, parent in pairwise(entries))


def check_finished(disk, before, new=NEW):
    """Everything is under the new key, and as it was otherwise."""
    store = make_store(disk, sealing=new)
    entries = store.entries()
    assert [read_back(store, entry) for entry in entries] == [3, 2, 1]
    assert [facts(entry) for entry in entries] == before
    assert is_chain(entries)
    assert pins.pinned(disk, entries) == {e.name for e in entries if e.step == PINNED}
    wanted = {path for entry in entries for path in (entry.path, entry.manifest_path)}
    wanted |= {DIRECTORY / layout.pin_of(e.name) for e in entries if e.step == PINNED}
    found = {path for path in disk.paths() if path.parent == DIRECTORY}
    assert found == wanted | {DIRECTORY / layout.META_NAME}
    assert entries[0].name.encode() in disk.content(DIRECTORY / layout.META_NAME)
    assert names(disk, WEIGHTS) == [WEIGHTS_FILE.name]
    keys = [new.key] if new.key is not None else []
    assert read_stock(disk, WEIGHTS_FILE, keys, lambda *tensor: None) == OpeningKey(new.mode, new.key)
    record = RunDirectory(ROOT, world(disk)).read()
    assert (record.mode, record.plain) == (new.mode, new.mode is None)
    assert record.key_id == (key_id(new.key) if new.key is not None else None)
    assert replace(record, mode=RECORD.mode, key_id=RECORD.key_id, plain=False) == RECORD


def named_key(disk):
    """The id of the key that run.json names."""
    return RunDirectory(ROOT, world(disk)).read().key_id
