"""Snapshots and slots without any framework: what the tests of the mirror's way to the disk share."""

from __future__ import annotations

import gc
import os
import struct
from dataclasses import replace

from resilient.codec.tensors import Record, info_record
from resilient.config import KeepPolicy, Sealing, WorkerConfig
from resilient.host.shared_memory import SharedMemory
from resilient.host.world import World
from resilient.saving.in_process import Committer, Snapshot
from resilient.saving.slots import Header
from resilient.state.snapshot import Progress, encode_extra
from resilient.store.opening import open_store
from resilient.wire.mirror import Mirror, MirrorLayout, place

RUN_ID = "run-1"
KEY = bytes(range(32))
GCM = Sealing("AES-GCM", KEY)
META_BYTES = 4096


def extra_of(step):
    """The description of the state after a step, as a training writes it."""
    return encode_extra({"network": 0, "not_trained": []}, Progress(0, step, 100))


def snapshot_of(step, **changes):
    """A snapshot with one tensor of every awkward kind, all of it telling its step."""
    weight = struct.pack("<6f", *(step + n for n in range(6)))
    records = (
        Record("net.w", "Float32", (2, 3), memoryview(bytearray(weight))),
        Record("net.none", "Float32", (0, 4), memoryview(bytearray(0))),
        Record("net.b", "BFloat16", (3,), memoryview(bytearray(struct.pack("<3H", step, 2, 3)))),
        Record("net.scalar", "Int32", (), memoryview(bytearray(struct.pack("<i", -step)))),
        Record("net.accu_grads", "Int8", (5,), memoryview(bytearray([step % 100] * 5)), 1),
        info_record("global_step", step),
        info_record("tag", f"schritt ü {step}"),
        info_record("empty", ""),
    )
    values = {
        "prefix": "CKP",
        "step": step,
        "epoch": 1,
        "step_in_epoch": step,
        "reason": "schedule",
        "failure": False,
        "records": records,
        "extra": extra_of(step),
        "weights": {"network": (replace(records[0]), replace(records[4], section=0))},
    }
    return Snapshot(**{**values, **changes})


def rank_mirror(size_bytes=24, slots=2, prefix="CKP"):
    """A rank's mirror with one tensor, over real shared memory."""
    areas = place([("net.w", "Int8", (size_bytes,), 0, size_bytes)])
    layout = MirrorLayout(RUN_ID, 0, prefix, areas, {"network": (0,)})
    return Mirror.make(layout, slots, SharedMemory.create, META_BYTES)


def write(mirror, step):
    """Writes the boundary of a step into a slot; every byte tells the step."""
    header = Header(step, 1, step, (info_record("global_step", step),), extra_of(step))

    def fill(number):
        for area in mirror.layout.areas:
            mirror.view(number, area)[:] = bytes([step % 256]) * area.size_bytes

    return mirror.write(step, header.encode(), fill)


def config_of(directory, **changes):
    """What a saver is told."""
    values = {"run_id": RUN_ID, "directory": directory, "seed": 0, "keep": KeepPolicy(), "sealing": GCM}
    return WorkerConfig(**{**values, **changes})


def store_of(directory, sealing=GCM):
    return open_store(directory, World(), sealing, RUN_ID)


def committer_of(directory, sealing=GCM):
    """What commits in the training process itself."""
    return Committer(store_of(directory, sealing), directory, 0, KeepPolicy(), sealing, World())


def content_of(store, entry):
    """Every tensor of a checkpoint as (section, name, dtype, dims, bytes), in their order, and the extra."""
    found = []

    def sink(name, dtype, dims, size_bytes, section):
        found.append((section, name, dtype, dims, bytearray(size_bytes)))
        return memoryview(found[-1][-1])

    extra = store.load(entry, sink)
    return [(*description, bytes(data)) for *description, data in found], extra


def committed_steps(directory):
    """The steps of all checkpoints, oldest first, after checking that each byte of theirs is of that step."""
    store = store_of(directory)
    steps = []
    for entry in reversed(store.entries()):
        tensors, extra = content_of(store, entry)
        values = {name: data for _, name, _, _, data in tensors}
        assert values["net.w"] == bytes([entry.step % 256]) * len(values["net.w"])
        assert int.from_bytes(values["global_step"], "little") == entry.step
        assert extra == extra_of(entry.step)
        steps.append(entry.step)
    return steps


def descriptors():
    """The open descriptors of this process; those of objects that nobody has any more do not count."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))
