"""The readers of a store and a run, given any bytes, raise an error of ours or return the original."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
from functools import partial
from pathlib import Path

import pytest
from hostile import changed, json_values, nested
from hypothesis import example, given
from hypothesis import strategies as st
from store_world import (
    DIRECTORY,
    GCM,
    KEY,
    OTHER_KEY,
    QUARANTINE,
    SEALINGS,
    Sinks,
    draft,
    filled,
    make_store,
    names,
    read_back,
    steps,
)

from chaos.faults import Fail
from chaos.simulated_disk import SimulatedDisk
from resilient.config import KeepPolicy
from resilient.errors import BusyError, CheckpointError, ResilientError, UnusableError
from resilient.host.world import World
from resilient.policy import retention
from resilient.run.rundir import RunDirectory, RunRecord
from resilient.store import layout, manifest
from resilient.store.manifest import Owner
from resilient.store.opening import open_store

OWNER = Owner("run-1", 0)
POLICIES = [KeepPolicy(max_count=2), KeepPolicy(per_minutes=10), KeepPolicy()]


def manifests(sealing):
    """The bytes of some manifests, newest first."""
    disk, store = filled(3, sealing=sealing)
    return [disk.content(entry.manifest_path) for entry in store.entries()]


GOOD = {name: manifests(sealing) for name, sealing in SEALINGS.items()}
PLAIN = json.loads(GOOD["plain"][0])["manifest"]


def forged(changes):
    """An unencrypted manifest, which anybody can write, with these fields and the right checksum."""
    inner = {**PLAIN, **changes}
    return manifest._file_of(inner, manifest._mac(inner, None).hex())


forgeries = st.dictionaries(st.sampled_from([*PLAIN, "another"]), json_values, min_size=1, max_size=3).map(
    forged
)


@pytest.mark.parametrize("name", SEALINGS)
@given(data=st.data())
def test_a_changed_manifest_is_refused(name, data):
    """Any change to a manifest makes it rejected with an error of ours."""
    keys = [key for key in (SEALINGS[name].key, OTHER_KEY) if key and name != "plain"]
    hostile = data.draw(changed(GOOD[name]) | st.binary(max_size=100))
    try:
        found = manifest.decode(hostile, keys, OWNER)
    except CheckpointError:
        assert hostile not in GOOD[name]
    else:
        assert hostile in GOOD[name]
        assert manifest.encode(found, SEALINGS[name].key) == hostile
    assert 0 <= manifest.claimed_generation(hostile) < 2**40


@given(forgeries)
@example(forged({"created": 10**400}))
@example(forged({"format": True}))
@example(forged({"rank": 0.0}))
@example(forged({"blocks": [0] * 5}))
@example(forged({"tags": "", "blocks": 2**62}))
@example(forged({"info": json.loads('{"a":' * 200 + "1" + "}" * 200)}))
def test_a_forged_manifest_is_refused_or_means_what_it_says(data):
    """Any JSON under a right checksum is rejected, or encodes to the same bytes again."""
    try:
        found = manifest.decode(data, [], OWNER)
    except CheckpointError:
        return
    assert manifest.encode(found, None) == data
    assert found.plain_bytes <= found.file_bytes


@pytest.mark.parametrize("depth", [400, 900, 990, 1000, 5000, 100_000])
@pytest.mark.parametrize("field", ["run_id", "rank", "info", "key_id", "format", "tags"])
def test_brackets_nested_too_deep_are_corrupt_or_foreign(depth, field):
    """Nesting too deep for the parser, anywhere in the JSON, raises an error of ours."""
    text = '{{"mac":"{}","manifest":{{"{}":{}{}}}}}\n'.format("00" * 32, field, "[" * depth, "]" * depth)
    for data in (text.encode(), nested(depth)):
        with pytest.raises(CheckpointError):
            manifest.decode(data, [KEY], OWNER)
        assert manifest.claimed_generation(data) == 0


def live(disk, sealing, policy):
    """Everything that a process does with a folder; it may raise only errors of ours."""
    store = make_store(disk, sealing=sealing)
    store.recover()
    sinks = Sinks()
    try:
        loaded = store.load_newest(sinks)
    except UnusableError:
        loaded = None
    for known in store.entries():
        with contextlib.suppress(ResilientError):
            store.verify(known)
    entry = store.commit(draft(50))
    store.prune(partial(retention.kept, policy))
    assert read_back(make_store(disk, sealing=sealing), entry) == 50
    return loaded


@given(data=st.data(), policy=st.sampled_from(POLICIES), torn=st.booleans())
def test_a_store_survives_any_manifest(data, policy, torn):
    """Beside a manifest of any content, or the remains of one, a good checkpoint is loaded, and the next save
    works."""
    disk, store = filled(3, sealing=SEALINGS["plain"])
    path = store.entries()[data.draw(st.integers(0, 1))].manifest_path
    hostile = data.draw(forgeries | changed(GOOD["plain"]) | st.binary(max_size=60))
    if torn:
        path = path.with_name(layout.temporary(path.name, "0" * 16))
    disk.put(path, hostile)
    loaded = live(disk, SEALINGS["plain"], policy)
    assert (
        loaded.entry.step in (1, 2, 3)
        or loaded.entry.manifest.step == json.loads(hostile)["manifest"]["step"]
    )


@pytest.mark.parametrize("name", SEALINGS)
@given(data=st.data(), policy=st.sampled_from(POLICIES))
def test_a_store_survives_any_data(name, data, policy):
    """If a data file holds anything but the committed bytes, an older checkpoint is loaded."""
    sealing = SEALINGS[name]
    disk, store = filled(2, sealing=sealing)
    files = [disk.content(entry.path) for entry in store.entries()]
    hostile = data.draw(changed(files) | st.binary(max_size=300))
    disk.put(store.entries()[0].path, hostile)
    loaded = live(disk, sealing, policy)
    assert loaded.entry.step == (2 if hostile == files[0] else 1)


file_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0") | st.integers(0xDC80, 0xDCFF).map(chr), max_size=20
)
"""Any name that a folder can list: bytes that are not UTF-8 become lone surrogates."""


@given(
    file_names.map("{}_rank_0-1_1".format) | file_names,
    st.sampled_from([".manifest", ".ckpt", ".reason.txt", ".ckpt.0123456789abcdef.tmp"]),
    st.binary(max_size=20),
    st.sampled_from([DIRECTORY, QUARANTINE]),
)
@example("\udcff_rank_0-1_1", ".manifest", b"", DIRECTORY)
@example("x" * 200 + "_rank_0-1_1", ".manifest", b"", DIRECTORY)
def test_a_store_survives_any_name(stem, ending, content, folder):
    """A file of any name and content, UTF-8 or not, does no harm to a good checkpoint beside it."""
    disk, _ = filled(1)
    disk.make_directory(QUARANTINE)
    path = folder / f"{stem}{ending}"
    if path not in disk.paths():
        disk.put(path, content)
    assert live(disk, SEALINGS["AES-GCM"], POLICIES[0]).entry.step == 1


@given(st.dictionaries(st.sampled_from([*PLAIN, "\ud800"]), json_values, min_size=1, max_size=2))
@example({"\ud800": 1})
@example({"x" * 60_000: 1})
def test_whatever_a_corrupt_file_says_it_is_set_aside(changes):
    """A reason that quotes text of any length and characters from the file is found again."""
    disk, store = filled(1, sealing=SEALINGS["plain"])
    disk.put(store.entries()[0].manifest_path, forged({**changes, "step": -1}))
    recovery = make_store(disk, sealing=SEALINGS["plain"]).recover()
    assert [failure.name for failure in recovery.quarantined] in (["CKP_rank_0-1_1.ckpt"], [])
    if recovery.quarantined:
        with pytest.raises(UnusableError, match="in the quarantine"):
            make_store(disk, sealing=SEALINGS["plain"]).load_newest(Sinks())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 100_000, b"run run-2 rank 0\n", b"run run-1"])
def test_reasons_of_others_stop_nobody(content):
    """A file in the quarantine that is no reason of ours, of any size, does not stop a fresh start."""
    disk = SimulatedDisk()
    disk.make_directory(QUARANTINE)
    disk.put(QUARANTINE / "CKP_rank_0-1_1.reason.txt", content)
    assert make_store(disk).load_newest(Sinks()) is None


@given(st.binary(max_size=100) | st.sampled_from([b"x" * 100_000, nested(50_000)]))
def test_meta_json_is_only_written(content):
    """Nothing depends on the content of meta.json, and the next commit corrects it."""
    disk, store = filled(1)
    disk.put(DIRECTORY / layout.META_NAME, content)
    assert make_store(disk).recover().failures == ()
    assert json.loads(disk.content(DIRECTORY / layout.META_NAME))["last_step"] == 1
    assert steps(store) == [1]


RUN = Path("/run")


def run_with(content):
    """A run directory whose run.json has this content."""
    disk = SimulatedDisk()
    disk.make_directory(RUN)
    disk.put(RUN / "run.json", content)
    return RunDirectory(RUN, World(files=disk))


def good_record():
    disk = SimulatedDisk()
    record = RunDirectory(RUN, World(files=disk)).open(
        {"command": ("a.py", "-x"), "checkpoints": ("/c",), "mode": "AES-GCM", "key_id": "00" * 8}
    )
    return record, disk.content(RUN / "run.json")


RECORD, RECORD_BYTES = good_record()


def demand_record(content):
    try:
        record = run_with(content).read()
    except UnusableError:
        return None
    for field in dataclasses.fields(RunRecord):
        value, good = getattr(record, field.name), getattr(RECORD, field.name)
        assert value is None or type(value) is type(good) or (field.name == "created" and type(value) is int)
    bytes.fromhex(record.salt)
    assert run_with(json.dumps(dataclasses.asdict(record)).encode()).read() == record
    return record


@given(changed([RECORD_BYTES]) | st.binary(max_size=50))
@example(nested(100_000))
@example(b'{"seed": 1e999}')
def test_a_changed_record_is_refused_or_a_record(content):
    """Any run.json is rejected as damaged, or decodes to a record with valid fields."""
    demand_record(content)


@given(
    st.dictionaries(st.sampled_from([*RunRecord.__dataclass_fields__]), json_values, min_size=1, max_size=2)
)
@example({"world_size": 2**53})
@example({"attempts": "many"})
@example({"checkpoints": "/c"})
@example({"checkpoints": ["\0"]})
@example({"salt": "zz"})
@example({"mode": "ROT13"})
def test_a_record_of_other_types_is_refused(changes):
    """JSON of the right fields with any values."""
    record = demand_record(json.dumps({**dataclasses.asdict(RECORD), **changes}).encode())
    assert record is None or all(
        json.dumps(getattr(record, name)) == json.dumps(value) for name, value in changes.items()
    )


@pytest.mark.parametrize("content", [b"", b"{}", b'{"pid": 1e999, "boot_id": ""}', nested(100_000), b"\xff"])
def test_a_lock_of_any_content_is_held(content):
    """A lock whose content names no process is still held, and the error says so."""
    disk = SimulatedDisk()
    run = RunDirectory(RUN, World(files=disk))
    run.lock()
    disk.put(RUN / "lock", content)
    with pytest.raises(BusyError, match="in use by another process") as caught:
        run.lock()
    assert caught.value.pid == 0


def test_what_is_no_file_is_no_reason(tmp_path):
    """A folder in the quarantine under a reason's name does not stop a fresh start."""
    (layout.quarantine_directory(tmp_path) / "a.reason.txt").mkdir(parents=True)
    assert open_store(tmp_path, World(), GCM, "run-1").load_newest(Sinks()) is None


def test_a_reason_that_the_disk_does_not_give_is_no_fresh_start():
    """While a reason in the quarantine cannot be read, the run does not start from zero."""
    disk = SimulatedDisk()
    disk.make_directory(QUARANTINE)
    disk.put(QUARANTINE / "CKP_rank_0-1_1.reason.txt", b"run run-1 rank 0\n")
    blind = disk.restart(lambda n, o: Fail(errno.EACCES) if o.kind == "read" else None)
    with pytest.raises(ResilientError):
        make_store(blind).load_newest(Sinks())
    assert names(disk, QUARANTINE) == ["CKP_rank_0-1_1.reason.txt"]
