"""The committer: which files go with a checkpoint, and which stay for another one."""

from __future__ import annotations

import pytest
from store_world import ROOT, SEALINGS, draft, make_store

from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.codec.tensors import info_record
from resilient.config import Best, KeepPolicy
from resilient.host.world import World
from resilient.saving.in_process import Committer, Snapshot
from resilient.store import layout


def committer(keep):
    disk = SimulatedDisk()
    world = World(disk, SteppedClock(), SeededEntropy(5))
    return disk, Committer(make_store(disk), ROOT, 0, keep, SEALINGS["AES-GCM"], world)


def snapshot(step, **changes):
    made = draft(step)
    values = {"prefix": made.prefix, "step": step, "epoch": made.epoch, "step_in_epoch": made.step_in_epoch}
    values |= {"records": tuple(made.records), "extra": made.extra, "reason": "schedule", "failure": False}
    weights = {layout.NETWORK: (info_record("step", step),)}
    return Snapshot(**{**values, "weights": weights, **changes})


def weights(disk):
    folder = layout.network_directory(ROOT, 0)
    return [path.name for path in disk.paths() if path.parent == folder]


def test_weights_go_with_the_last_checkpoint_of_their_step():
    """Two checkpoints of one step share a weights file: it stays until both are gone."""
    disk, saver = committer(KeepPolicy(max_count=1))
    for number in range(2):
        assert saver.commit(snapshot(3, reason=f"number {number}")).remarks == ()
    assert [entry.manifest.reason for entry in saver.store.entries()] == ["number 1"]
    assert weights(disk) == ["CKP_rank_0-network-1_3.ckpt"]
    saver.commit(snapshot(4))
    assert weights(disk) == ["CKP_rank_0-network-1_4.ckpt"]


@pytest.mark.parametrize("detach", [False, True])
def test_what_a_checkpoint_is_judged_by_reaches_its_manifest(detach):
    """The info of a snapshot, detached or not, decides what retention keeps."""
    _, saver = committer(KeepPolicy(max_count=1, best=Best(1, "accuracy", "max")))
    for step, accuracy in enumerate((0.5, 0.9, 0.7, 0.8), start=1):
        taken = snapshot(step, info={"loss": 1.0, "metrics": {"accuracy": accuracy}})
        saver.commit(taken.detached() if detach else taken)
    assert [entry.step for entry in saver.store.entries()] == [4, 2]
