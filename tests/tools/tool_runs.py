"""Runs on a real disk, made by the store itself, and a way to call ``resilient``."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from resilient.codec import keys
from resilient.codec.tensors import Record, info_record
from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.store import layout
from resilient.store.entry import Draft
from resilient.store.opening import open_store
from resilient.store.weights import write_weights
from resilient.tools import main

CANARY = b"PLAINTEXT CANARY"
STEPS = (5, 10, 15)


@dataclass
class Tool:
    """The command line, in this process."""

    capfd: object

    def __call__(self, *words, status=0):
        """The output of a command, which must end with this status."""
        self.capfd.readouterr()
        found = main([str(word) for word in words])
        self.out, self.err = self.capfd.readouterr()
        assert found == status, (found, self.out, self.err)
        return self.out

    def json(self, *words, status=0):
        """The objects that a command prints with --json; every line is one."""
        return [json.loads(line) for line in self(*words, "--json", status=status).splitlines()]


def key_file(folder, name, size=32):
    """A key in a file, and the file."""
    path = Path(folder) / name
    key = os.urandom(size)
    path.write_text(key.hex())
    path.chmod(0o600)
    return key, path


def tensor(step):
    return (CANARY + struct.pack("<q", step)) * 40


def records(step):
    return [
        Record("weight", "Float32", (len(tensor(step)) // 4,), tensor(step)),
        Record("flag", "Bool", (1,), b"\x01"),
        info_record("step_num", step),
        info_record("note", "héllo"),
        Record("void", "Float32", (0,), b""),
        Record("wave", "Complex128", (1,), bytes(16)),
        Record("accu_grads.weight", "Float32", (2,), bytes(8), section=1),
    ]


def make_run(root, sealing=None, steps=STEPS, weights=False, **template):
    """A run with a checkpoint of each step; its store."""
    sealing = sealing or Sealing()
    world = World()
    key_id = keys.key_id(sealing.key) if sealing.key else None
    known = {"key_id": key_id, "mode": sealing.mode, "plain": sealing.mode is None, "attempts": 1}
    record = RunDirectory(Path(root), world).open({**known, **template})
    store = open_store(Path(root), world, sealing, record.run_id, allow_plain=True)
    for step in steps:
        store.commit(draft(step))
        if weights:
            name = layout.WeightsName("CKP", 0, layout.NETWORK, *place(step)).data
            path = layout.network_directory(Path(root), 0) / name
            write_weights(world.files, path, records(step)[:1], sealing, world.entropy)
    return store


def place(step):
    return 1 + (step - 1) // 8, 1 + (step - 1) % 8


def draft(step, **changes):
    epoch, step_in_epoch = place(step)
    values = {"prefix": "CKP", "epoch": epoch, "step_in_epoch": step_in_epoch, "step": step}
    values |= {"records": records(step), "extra": CANARY, "reason": "schedule", "info": {"loss": 1 / step}}
    return Draft(**{**values, **changes})


def flip(path, at=-1):
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def every_file(root):
    """The content of every file below a directory."""
    return {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
