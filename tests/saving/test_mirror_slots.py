"""A slot of the mirror becomes a checkpoint: the very one that the training itself would have made."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slots import (
    KEY,
    RUN_ID,
    committer_of,
    config_of,
    content_of,
    descriptors,
    extra_of,
    rank_mirror,
    snapshot_of,
    store_of,
    write,
)

from resilient.codec.tensors import Record, info_record
from resilient.config import Sealing
from resilient.errors import MirrorError
from resilient.host.files import DiskFiles, DiskWriter
from resilient.host.world import World
from resilient.saving import slots
from resilient.saving.in_process import InlineSaver
from resilient.saving.saver_process import SaverProcess
from resilient.saving.slots import Header, mirror_of
from resilient.wire.messages import CommitSlot, SaveDone, SaverReady, SlotCommitted, TakeOver, UnknownMessage
from resilient.wire.mirror import Mirror, Slot
from resilient.worker.process.shared_pages import recover_from

SEALINGS = [Sealing(), Sealing("AES-GCM", KEY), Sealing("AES-CBC", KEY), Sealing("SM4-CBC", KEY[:16])]


def as_read(records):
    """Records as values that can be compared, whatever holds their bytes."""
    return [(r.section, r.name, r.dtype, r.dims, bytes(r.data)) for r in records]


def asked(mirror, slot, **why):
    """What a saver is sent to commit a slot."""
    values = {"reason": "schedule", "failure": False, "hurry": True, **why}
    return CommitSlot(slot, **values), [os.dup(mirror.memory.descriptor)]


# Headers


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
entries = st.lists(
    st.one_of(
        st.builds(info_record, names, st.integers(-(2**63), 2**63 - 1)),
        st.builds(info_record, names, st.floats(width=32)),
        st.builds(info_record, names, st.booleans()),
        st.builds(info_record, names, st.text(max_size=10)),
        st.builds(Record, names, st.just("Int8"), st.just((2, 0, 3)), st.just(b"")),
    ),
    max_size=5,
)
counts = st.integers(0, 2**63 - 1)


@given(counts, counts, counts, entries, st.binary(max_size=100))
def test_what_a_boundary_is_beside_its_tensors_survives(step, epoch, step_in_epoch, found, extra):
    """Counters, entries of every type and the description come back as they were, line breaks included."""
    header = Header(step, epoch, step_in_epoch, tuple(found), extra)
    assert Header.decode(header.encode()) == header


@given(st.binary(max_size=200))
def test_any_bytes_are_a_meta_or_refused(meta):
    """Whatever a slot's meta says: MirrorError, and nothing else."""
    with pytest.raises(MirrorError):
        Header.decode(meta)


@pytest.mark.parametrize(
    "meta",
    [
        b'"text"',
        b"[]",
        b"3",
        b'{"entries":[]}',
        b'{"step":1,"epoch":1,"step_in_epoch":1,"entries":3}',
        b'{"step":1,"epoch":1,"step_in_epoch":1,"entries":[["n","Int8",[],5]]}',
        b'{"step":1,"epoch":1,"step_in_epoch":1,"entries":[["n","Int8",["1"],""]]}',
        b'{"step":1,"epoch":1,"step_in_epoch":1,"entries":[[1,"Int8",[],""]]}',
        b'{"step":"1","epoch":1,"step_in_epoch":1,"entries":[]}',
        b'{"step":-1,"epoch":1,"step_in_epoch":1,"entries":[]}',
        b'{"step":1,"epoch":true,"step_in_epoch":1,"entries":[]}',
        b'{"step":1,"epoch":1,"step_in_epoch":1,"entries":[],"extra":"twice"}',
        b'{"step":1,"epoch":1,"step_in_epoch":1,"entries":[],"more":1}',
    ],
)
def test_a_meta_of_another_shape_is_refused(meta):
    """JSON that is no header makes MirrorError, not whatever reading it raises."""
    with pytest.raises(MirrorError):
        Header.decode(meta)


def test_a_slot_that_holds_another_step_than_it_says_is_refused():
    """A slot's own step and its meta's must agree: else one of them is of another boundary."""
    mirror = rank_mirror()
    slot = mirror.write(5, Header(6, 1, 6, (), b"").encode(), lambda number: None)
    with pytest.raises(MirrorError, match="step 5 holds step 6"):
        slots.snapshot(mirror, slot, "killed", failure=True)


# Snapshots of slots


def test_a_slot_is_a_snapshot_over_its_own_memory():
    """Counters, tensors, entries and weights as they were written; nothing is copied."""
    mirror = rank_mirror()
    found = slots.snapshot(mirror, write(mirror, 5), "schedule", failure=False)
    assert (found.prefix, found.step, found.epoch, found.step_in_epoch) == ("CKP", 5, 1, 5)
    assert as_read(found.records) == [
        (0, "net.w", "Int8", (24,), b"\x05" * 24),
        (0, "global_step", "Int64", (), struct.pack("<q", 5)),
    ]
    assert found.extra == extra_of(5)
    assert as_read(found.weights["network"]) == as_read(found.records[:1])
    found.check()
    write(mirror, 6)
    found.check()
    write(mirror, 7)
    assert bytes(found.records[0].data) == b"\x07" * 24
    with pytest.raises(MirrorError, match="written again"):
        found.check()


def test_a_failure_has_no_weights_files():
    """Weights files belong to scheduled checkpoints: nothing is resumed from them."""
    mirror = rank_mirror()
    assert slots.snapshot(mirror, write(mirror, 5), "killed", failure=True).weights == {}


def test_the_next_attempt_goes_on_from_the_newest_slot():
    """What is read from a mirror is the state that was written last; an empty one has none."""
    mirror = rank_mirror()
    assert recover_from(mirror) is None
    write(mirror, 1)
    write(mirror, 2)
    recovered = recover_from(mirror)
    assert recovered.progress.step == 2
    assert bytes(recovered.of_network(0)["net.w"].data) == b"\x02" * 24
    assert recovered.source == "memory"


# Mirrors of snapshots


@pytest.mark.parametrize("failure", [False, True])
def test_a_snapshot_survives_its_own_mirror(failure):
    """Empty tensors, scalars, texts, bfloat16 and every section come back, in their order."""
    before = snapshot_of(7, failure=failure, reason="why")
    mirror, slot = mirror_of(before, RUN_ID, 3)
    mapped = Mirror.of(os.dup(mirror.memory.descriptor))
    after = slots.snapshot(mapped, slot, "why", failure=failure)
    assert (mapped.layout.run_id, mapped.layout.rank) == (RUN_ID, 3)
    assert as_read(after.records) == as_read(before.records)
    weights = {} if failure else before.weights
    assert {kind: as_read(found) for kind, found in after.weights.items()} == {
        kind: as_read(found) for kind, found in weights.items()
    }
    for name in ("prefix", "step", "epoch", "step_in_epoch", "reason", "failure", "extra"):
        assert getattr(after, name) == getattr(before, name)


def test_weights_share_their_tensors_memory():
    """What a weights file has in common with the checkpoint is in memory once."""
    alone = snapshot_of(7, weights={})
    shared = snapshot_of(7)
    more = replace(shared, weights={**shared.weights, "trainable": shared.weights["network"]})
    sizes = [mirror_of(snapshot, RUN_ID, 0)[0].layout.data_bytes for snapshot in (alone, shared, more)]
    assert sizes[0] == sizes[1] == sizes[2]


def test_what_only_a_weights_file_holds_is_in_no_checkpoint():
    """The whole of a tensor that automatic parallel has split goes to the weights, and there alone."""
    whole = Record("net.w", "Int8", (8,), bytes(range(8)))
    before = snapshot_of(7, weights={"network": (whole,)})
    mirror, slot = mirror_of(before, RUN_ID, 0)
    after = slots.snapshot(mirror, slot, "schedule", failure=False)
    assert as_read(after.records) == as_read(before.records)
    assert as_read(after.weights["network"]) == as_read([whole])


@pytest.mark.parametrize("value", [b"", b"\x01"])
def test_tensors_that_share_their_bytes_keep_their_names(value):
    """Python has one object for all empty bytes; tensors may be tied: in a weights file they are two."""
    records = tuple(Record(name, "Bool", (len(value),), value) for name in ("first", "second"))
    before = snapshot_of(7, records=records, weights={"network": records}).detached()
    mirror, slot = mirror_of(before, RUN_ID, 0)
    after = slots.snapshot(mirror, slot, "schedule", failure=False)
    assert as_read(after.records) == as_read(records)
    assert as_read(after.weights["network"]) == as_read(records)


# Committing slots


@pytest.mark.parametrize("sealing", SEALINGS, ids=lambda sealing: sealing.mode or "plain")
@pytest.mark.parametrize("failure", [False, True])
def test_a_slot_becomes_the_checkpoint_that_the_training_would_have_made(tmp_path, sealing, failure):
    """Name, manifest and every record equal those of the saver that the training waits for."""
    snapshot = snapshot_of(7, failure=failure, reason="exception" if failure else "schedule")
    reports = []
    InlineSaver(committer_of(tmp_path / "inline", sealing).commit, reports.append).save(snapshot)
    mirror, slot = mirror_of(snapshot, RUN_ID, 0)
    saver = SaverProcess(config_of(tmp_path / "saver", sealing=sealing), World())
    answer = saver.answer(*asked(mirror, slot, reason=snapshot.reason, failure=failure))
    assert (answer.error, answer.remarks, answer.epoch) == ("", (), 1)
    assert Path(answer.path).name == reports[0].path.name
    stores = [store_of(tmp_path / place, sealing) for place in ("inline", "saver")]
    ours, theirs = (store.entries() for store in stores)
    assert [entry.name for entry in ours] == [entry.name for entry in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert content_of(stores[0], one) == content_of(stores[1], other)
        for name in ("step", "epoch", "step_in_epoch", "generation", "reason", "failure", "prefix"):
            assert getattr(one.manifest, name) == getattr(other.manifest, name)


def test_weights_files_equal_those_that_the_training_would_have_made(tmp_path):
    """Unencrypted, they are the same bytes."""
    snapshot, files = snapshot_of(7), []
    committer_of(tmp_path / "inline", Sealing()).commit(snapshot)
    mirror, slot = mirror_of(snapshot, RUN_ID, 0)
    saver = SaverProcess(config_of(tmp_path / "saver", sealing=Sealing()), World())
    assert saver.answer(*asked(mirror, slot)).remarks == ()
    for place in ("inline", "saver"):
        (found,) = (tmp_path / place / "checkpoint_network").rglob("*.ckpt")
        files.append((found.name, found.read_bytes()))
    assert files[0] == files[1]


class Disturbed(DiskFiles):
    """A real disk on which ``disturb(what, path)`` runs before a file is created, and before it is synced."""

    def __init__(self, disturb):
        self.disturb = disturb

    def create(self, path):
        self.disturb("create", path)
        return Noticing(super().create(path), path, self.disturb)


class Noticing:
    def __init__(self, writer: DiskWriter, path, disturb):
        self._path = path
        self._disturb = disturb
        self._writer = writer
        self.write, self.close = writer.write, writer.close

    def sync(self):
        self._disturb("sync", self._path)
        self._writer.sync()


def commit_disturbed(directory, when):
    """Commits step 1 of a slot nobody has pinned, which is written again at ``when(what, path)``."""
    mirror = rank_mirror()
    slot = write(mirror, 1)

    def disturb(what, path):
        if when(what, path) and mirror.is_still(slot):
            write(mirror, 2)
            write(mirror, 3)

    saver = SaverProcess(config_of(directory), World(files=Disturbed(disturb)))
    answer = saver.answer(*asked(mirror, slot))
    assert not mirror.is_still(slot)
    return answer


@pytest.mark.parametrize("what", ["create", "sync"])
def test_a_slot_that_is_written_again_meanwhile_is_no_checkpoint(tmp_path, what):
    """From the data file's first byte to its last: an error is told, and nothing is left of it."""
    answer = commit_disturbed(tmp_path, lambda now, path: now == what and ".ckpt" in path.name)
    assert "written again" in answer.error
    assert answer.path == ""
    assert store_of(tmp_path).entries() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_slot_that_is_written_again_afterwards_is_a_checkpoint(tmp_path):
    """Once all of it has been read, what becomes of the slot no longer matters."""
    answer = commit_disturbed(tmp_path, lambda now, path: now == "sync" and ".manifest" in path.name)
    assert answer.error == ""
    store = store_of(tmp_path)
    (entry,) = store.entries()
    assert content_of(store, entry)[0][0][-1] == b"\x01" * 24


@pytest.mark.parametrize("what", ["create", "sync"])
def test_weights_of_a_slot_that_is_written_again_are_not_kept(tmp_path, what):
    """The checkpoint is there; a weights file that may be of two boundaries never gets its name."""
    answer = commit_disturbed(
        tmp_path, lambda now, path: now == what and "checkpoint_network" in path.as_posix()
    )
    assert answer.error == ""
    assert [remark for remark in answer.remarks if "written again" in remark]
    assert [path for path in (tmp_path / "checkpoint_network").rglob("*") if path.is_file()] == []


def test_a_slot_that_was_written_again_before_is_refused(tmp_path):
    """A request that comes too late is an error: it must not save another boundary under its name."""
    mirror = rank_mirror()
    slot = write(mirror, 1)
    write(mirror, 2)
    write(mirror, 3)
    answer = SaverProcess(config_of(tmp_path), World()).answer(*asked(mirror, slot))
    assert answer.error
    assert store_of(tmp_path).entries() == []


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (CommitSlot(Slot(0, 1, 1), "x", failure=False, hurry=True), 0),
        (CommitSlot(Slot(9, 1, 1), "x", failure=False, hurry=True), 1),
        (CommitSlot(Slot(-1, 1, 1), "x", failure=False, hurry=True), 2),
        (UnknownMessage("nonsense"), 2),
        (SaveDone(""), 1),
        (TakeOver(), 3),
    ],
    ids=str,
)
def test_requests_without_sense_are_answered_and_leak_nothing(tmp_path, message, count):
    """Whatever is asked, there is an answer, and no descriptor stays."""
    saver = SaverProcess(config_of(tmp_path), World())
    mirror = rank_mirror()
    write(mirror, 1)
    before = descriptors()
    answer = saver.answer(message, [os.dup(mirror.memory.descriptor) for _ in range(count)])
    opens = isinstance(message, TakeOver)
    assert isinstance(answer, SaverReady if opens else SlotCommitted)
    assert bool(answer.error) != opens
    if saver._lock is not None:
        saver._lock.release()
    assert descriptors() == before


def test_a_memory_that_is_no_mirror_is_an_answer(tmp_path):
    """The saver lives on: the next request is served."""
    saver = SaverProcess(config_of(tmp_path), World())
    before = descriptors()
    reading, writing = os.pipe()
    os.close(writing)
    assert (
        "no memory"
        in saver.answer(CommitSlot(Slot(0, 1, 1), "x", failure=False, hurry=True), [reading]).error
    )
    assert descriptors() == before
    mirror = rank_mirror()
    assert saver.answer(*asked(mirror, write(mirror, 1))).error == ""


def test_many_commits_leave_no_descriptor_and_no_memory(tmp_path):
    """A saver that lives as long as the run lets go of each mirror it has committed."""
    saver = SaverProcess(config_of(tmp_path), World())
    before = descriptors()
    for step in range(1, 6):
        mirror, slot = mirror_of(snapshot_of(step), RUN_ID, 0)
        assert saver.answer(*asked(mirror, slot)).error == ""
        mirror.close()
        del mirror
        assert descriptors() == before
