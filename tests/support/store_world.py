"""A store on a simulated disk, with content that can be told apart: what the store tests share."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.codec.tensors import Record, info_record
from resilient.config import KeepPolicy, Sealing
from resilient.policy import retention
from resilient.store.entry import Draft
from resilient.store.store import Store

ROOT = Path("/run")
DIRECTORY = ROOT / "checkpoint" / "rank_0"
QUARANTINE = ROOT / "quarantine"
KEY = bytes(range(100, 132))
OTHER_KEY = bytes(range(32))
CANARY = b"PLAINTEXT CANARY"
SEALINGS = {
    "plain": Sealing(),
    "AES-GCM": Sealing("AES-GCM", KEY),
    "AES-CBC": Sealing("AES-CBC", KEY),
    "SM4-CBC": Sealing("SM4-CBC", KEY[:16]),
}
GCM = SEALINGS["AES-GCM"]

_processes = count()


def content(step):
    """The tensor of the state after a step: several small blocks, and the canary in each."""
    return (CANARY + b" %08d " % step) * 8


def draft(step, **changes):
    values = {
        "prefix": "CKP",
        "epoch": 1 + (step - 1) // 10,
        "step_in_epoch": 1 + (step - 1) % 10,
        "step": step,
        "records": [
            Record("w", "Int8", (len(content(step)),), content(step)),
            info_record("global_step", step),
        ],
        "extra": CANARY + b"%d" % step,
        "reason": "schedule",
        "info": {"loss": 0.5},
    }
    return Draft(**{**values, **changes})


def make_store(files, *, sealing=GCM, clock=None, entropy=None, run_id="run-1", **more):
    return Store(
        DIRECTORY,
        quarantine=QUARANTINE,
        files=files,
        clock=clock or SteppedClock(),
        # Another one for each process, as the kernel's is.
        entropy=entropy or SeededEntropy(next(_processes)),
        sealing=sealing,
        run_id=run_id,
        **more,
    )


class Sinks:
    """Makes sinks that collect what they are given."""

    def __init__(self):
        self.tensors = {}

    def __call__(self, entry):
        self.tensors = {}
        return self.sink

    def sink(self, name, dtype, dims, size_bytes, section):
        self.tensors[name] = bytearray(size_bytes)
        return memoryview(self.tensors[name])


def read_back(store, entry):
    """The step that an entry's content says, after checking that all of it is of that step."""
    sinks = Sinks()
    extra = store.load(entry, sinks(entry))
    step = int.from_bytes(sinks.tensors["global_step"], "little")
    assert bytes(sinks.tensors["w"]) == content(step)
    assert extra == CANARY + b"%d" % step
    assert step == entry.step
    return step


def steps(store):
    """The steps of all valid checkpoints, newest first, each read in full."""
    return [read_back(store, entry) for entry in store.entries()]


def newest(number):
    return partial(retention.kept, KeepPolicy(max_count=number))


def filled(step_count, *, sealing=GCM, disk=None):
    """A disk with checkpoints of the steps 1, 2, ..., and the store that made them."""
    disk = disk or SimulatedDisk()
    store = make_store(disk, sealing=sealing)
    for step in range(1, step_count + 1):
        store.commit(draft(step))
    return disk, store


def names(disk, folder=DIRECTORY):
    return [path.name for path in disk.paths() if path.parent == folder]


def damage(disk, path):
    """Flips one bit in the middle of a file."""
    data = bytearray(disk.content(path))
    data[len(data) // 2] ^= 1
    disk.put(path, bytes(data))
