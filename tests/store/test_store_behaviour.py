"""The store's promises without crashes and tampering."""

from __future__ import annotations

import errno
import json
from functools import partial

import pytest
from store_world import (
    DIRECTORY,
    GCM,
    QUARANTINE,
    SEALINGS,
    Sinks,
    draft,
    filled,
    make_store,
    names,
    newest,
    read_back,
    steps,
)

from chaos.faults import Fail
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.config import KeepPolicy, Sealing
from resilient.errors import ShunnedError
from resilient.host.entropy import SystemEntropy
from resilient.host.files import DiskFiles
from resilient.policy import retention
from resilient.store import layout
from resilient.store.store import Store


@pytest.mark.parametrize("sealing", SEALINGS.values(), ids=SEALINGS)
def test_what_is_committed_is_loaded(sealing):
    """In each mode, a new process reads the newest checkpoint back exactly."""
    disk, _ = filled(3, sealing=sealing)
    sinks = Sinks()
    loaded = make_store(disk.restart(), sealing=sealing).load_newest(sinks)
    assert (loaded.entry.step, loaded.failures) == (3, ())
    assert loaded.entry.manifest.info == {"loss": 0.5}
    assert loaded.entry.manifest.parent == make_store(disk, sealing=sealing).entries()[1].digest


def test_nothing_at_all_is_none():
    """A run without checkpoints starts anew without an error."""
    store = make_store(SimulatedDisk())
    assert store.load_newest(Sinks()) is None
    assert (store.entries(), store.recover().entries) == ([], ())


def test_what_is_not_allowed_is_passed_over_and_stays():
    """A valid state that is not allowed is neither read, moved nor counted as a failure."""
    _, store = filled(3)
    loaded = store.load_newest(Sinks(), lambda entry: entry.step < 3)
    assert (loaded.entry.step, loaded.failures) == (2, ())
    assert steps(store) == [3, 2, 1]


def test_where_all_that_is_left_was_set_aside_nothing_is_begun_anew():
    """Checkpoints of which none is allowed raise an error of their own, and every file stays."""
    _, store = filled(2)
    with pytest.raises(ShunnedError, match="no older state"):
        store.load_newest(Sinks(), lambda entry: False)
    assert steps(store) == [2, 1]


def test_order_is_by_generation_under_any_clock():
    """Neither a jumping wall clock nor any order of file times changes which checkpoint is the newest."""
    disk, clock = SimulatedDisk(), SteppedClock()
    store = make_store(disk, clock=clock)
    for step, jump in [(1, 0), (2, -1e6), (3, 2e6), (4, -5e5)]:
        clock.jump(jump)
        store.commit(draft(step))
    for path in reversed(disk.paths()):
        disk.put(path, disk.content(path))
    assert steps(store) == [4, 3, 2, 1]


def test_a_committed_file_is_never_overwritten():
    """A second checkpoint of the same step gets stock's numeric suffix; both stay valid."""
    disk, store = filled(1)
    store.commit(draft(1))
    assert steps(store) == [1, 1]
    assert "CKP_rank_0-1_1.ckpt" in names(disk)
    assert "CKP_rank_0_1-1_1.ckpt" in names(disk)


def test_stocks_files_are_never_touched():
    """Stock's checkpoints in the same folder keep their content, and their names count as taken."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    for name in ("CKP_rank_0-1_1.ckpt", "net-1_2.ckpt", "data.manifest", "CKP_rank_0-1_7.tmp", ".hidden.tmp"):
        disk.put(DIRECTORY / name, b"theirs")
    store = make_store(disk)
    store.recover()
    for step in range(1, 5):
        store.commit(draft(step))
        store.prune(newest(1))
    make_store(disk).recover()
    theirs = {path.name for path in disk.paths() if disk.content(path) == b"theirs"}
    assert theirs == {
        "CKP_rank_0-1_1.ckpt",
        "net-1_2.ckpt",
        "data.manifest",
        "CKP_rank_0-1_7.tmp",
        ".hidden.tmp",
    }
    assert names(disk, QUARANTINE) == []


def test_failure_checkpoints_are_checkpoints():
    """A failure checkpoint has a name that says so, loads like any other and counts in retention."""
    disk, store = filled(2)
    store.commit(draft(3, failure=True, reason="exception"))
    store.prune(newest(1))
    assert steps(store) == [3]
    assert "CKP_rank_0-1_3_breakpoint.ckpt" in names(disk)


def test_meta_describes_the_newest():
    """meta.json has stock's format and is right after each commit, prune and recovery."""
    disk, store = filled(12)
    meta = DIRECTORY / layout.META_NAME
    wanted = {"last_epoch": 2, "last_step": 2, "last_ckpt_file": "CKP_rank_0-2_2.ckpt"}
    assert json.loads(disk.content(meta)) == wanted
    disk.put(meta, b"torn")
    store.recover()
    assert json.loads(disk.content(meta)) == wanted
    entry = store.entries()[0]
    disk.put(entry.path, b"")
    store.prune(newest(20))
    assert json.loads(disk.content(meta))["last_ckpt_file"] == "CKP_rank_0-2_1.ckpt"


def test_a_failing_meta_does_not_fail_the_checkpoint():
    """The checkpoint counts even if meta.json cannot be written, and the store shows that error."""
    faults = {"armed": False}

    def plan(number, operation):
        hit = faults["armed"] and operation.kind == "create" and "meta" in operation.path.name
        return Fail(errno.ENOSPC) if hit else None

    store = make_store(SimulatedDisk(plan=plan))
    faults["armed"] = True
    store.commit(draft(1))
    assert steps(store) == [1]
    assert store.meta_error.errno == errno.ENOSPC
    faults["armed"] = False
    store.recover()
    assert store.meta_error is None


def test_not_finite_numbers_do_not_prevent_a_checkpoint():
    """A loss that has become NaN or infinite is stored like any other."""
    _, store = filled(0)
    store.commit(draft(1, info={"loss": float("nan"), "best": float("inf")}))
    assert str(store.entries()[0].manifest.info["loss"]) == "nan"


@pytest.mark.parametrize(
    "prefix", ["a*b[c]?", "with space", "a-b-1_2", "x_rank_9-1_1", ".dot", "名前", "a.ckpt"]
)
def test_prefixes_may_hold_any_character(tmp_path, prefix):
    """On a real disk, prefixes with glob characters, dashes, dots and spaces commit, load and prune."""
    store = Store(
        tmp_path / "checkpoint",
        quarantine=tmp_path / "quarantine",
        files=DiskFiles(),
        clock=SteppedClock(),
        entropy=SystemEntropy(),
        sealing=GCM,
        run_id="run-1",
    )
    for step in (1, 2, 3):
        store.commit(draft(step, prefix=prefix))
    (tmp_path / "checkpoint" / "aXbc1_rank_0-9_9.ckpt").write_bytes(b"theirs")
    store.prune(partial(retention.kept, KeepPolicy(max_count=2)))
    store.recover()
    assert steps(store) == [3, 2]
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == sorted(
        ["aXbc1_rank_0-9_9.ckpt", "meta.json"]
        + [f"{prefix}_rank_0-1_{step}.{end}" for step in (2, 3) for end in ("ckpt", "manifest")]
    )


def test_files_are_private(tmp_path):
    """On a real disk, only the owner can read checkpoints, manifests, meta.json and folders."""
    store = Store(
        tmp_path / "a" / "b",
        quarantine=tmp_path / "quarantine",
        files=DiskFiles(),
        clock=SteppedClock(),
        entropy=SystemEntropy(),
        sealing=Sealing(),
        run_id="run-1",
    )
    store.commit(draft(1))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()} == {0o600}
    assert {(tmp_path / "a").stat().st_mode & 0o777, (tmp_path / "a" / "b").stat().st_mode & 0o777} == {0o700}


def test_read_back_would_notice():
    """The check these tests rely on fails for content of another step."""
    _, store = filled(1)
    entry = store.commit(draft(2, extra=b"wrong"))
    with pytest.raises(AssertionError):
        read_back(store, entry)
