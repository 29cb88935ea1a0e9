"""Rekeying: at every moment, every state is readable with the old or the new key."""

from __future__ import annotations

import errno

import pytest
from rekeyed import (
    NEW,
    OLD,
    PINNED,
    STEPS,
    WEIGHTS_FILE,
    a_run,
    both,
    check_finished,
    facts,
    is_chain,
    rekey,
    world,
)
from store_world import (
    CANARY,
    KEY,
    OTHER_KEY,
    ROOT,
    SEALINGS,
    damage,
    draft,
    make_store,
    newest,
    read_back,
)

from chaos.crashes import ends, moments
from chaos.faults import Fail, Kill, Killed, at
from chaos.simulated_disk import SimulatedDisk
from resilient.codec.keys import key_id
from resilient.config import Sealing
from resilient.errors import StorageError, WrongKeyError
from resilient.run.rundir import RunDirectory
from resilient.store import layout, pins
from resilient.store.bare_file import read_stock

ANEW = {name: Sealing(s.mode, OTHER_KEY[: len(s.key)]) if s.key else s for name, s in SEALINGS.items()}


@pytest.mark.parametrize(
    ("old", "new"), [(old, new) for old in SEALINGS for new in ANEW if (old, new) != ("plain", "plain")]
)
def test_everything_is_sealed_anew(old, new):
    """Between any two modes, or two keys of one mode, rekeying keeps content, order, reasons, times, pins and
    the chain."""
    old, new = SEALINGS[old], ANEW[new]
    disk = a_run(old)
    before = [facts(entry) for entry in make_store(disk, sealing=old).entries()]
    assert all(one.failure is None for one in rekey(disk, both(old, new)))
    check_finished(disk, before, new)
    assert rekey(disk, both(old, new)) == [], "a second time there is nothing left to do"


def test_there_and_back_again():
    """Rekeyed twice, the second time with the first key: everything is as at first, names included."""
    disk = a_run()
    store = make_store(disk)
    before = [(entry.name, facts(entry)) for entry in store.entries()]
    rekey(disk)
    rekey(disk, both(NEW, OLD))
    entries = make_store(disk).entries()
    assert [(entry.name, facts(entry)) for entry in entries] == before
    assert is_chain(entries)


def test_a_crash_at_any_operation():
    """After a kill or a power loss at any operation, all states are readable with the two keys, the old key
    alone opens the newest or nothing, run.json names the new key only when it opens all, and running it again
    finishes."""
    disk = a_run()
    before = [facts(entry) for entry in make_store(disk).entries()]
    seen = set()

    def witness(state):
        seen.update(ends(state))

    moments(disk, lambda: rekey(disk), witness)
    assert len(seen) > 200
    for state in seen:
        found = SimulatedDisk(state)
        check_promises(found)
        rekey(found)
        check_finished(found, before)


def check_promises(disk):
    store = make_store(disk, sealing=both(), allow_plain=True)
    assert sorted({read_back(store, entry) for entry in store.entries()}) == [1, 2, 3]
    with_old = [entry.step for entry in make_store(disk, sealing=OLD).entries()]
    assert with_old[:1] in ([STEPS], [])
    record = RunDirectory(ROOT, world(disk)).read()
    with_new = {entry.step for entry in make_store(disk, sealing=NEW).entries()}
    assert record.key_id == key_id(KEY) or with_new == {1, 2, 3}
    pinned = pins.pinned(disk, store.entries())
    assert {entry.step for entry in store.entries() if entry.name in pinned} == {PINNED}
    assert read_stock(disk, WEIGHTS_FILE, [KEY, OTHER_KEY], lambda *tensor: None).key in (KEY, OTHER_KEY)
    assert not any(CANARY in content for content in disk.every_byte())


def test_a_second_crash_while_finishing():
    """A rekey that is killed twice loses nothing, and the third try finishes."""
    before = [facts(entry) for entry in make_store(a_run()).entries()]
    count = len(rehearsed().log)
    for first in range(0, count, 13):
        once = SimulatedDisk(a_run().state(), at(first, Kill()))
        with pytest.raises(Killed):
            rekey(once)
        for second in range(0, count, 17):
            twice = once.crash(lambda n: n - 1, at(second, Kill()))
            try:
                rekey(twice)
            except Killed:
                check_promises(twice.restart())
            again = twice.restart()
            rekey(again)
            check_finished(again, before)


def rehearsed():
    disk = SimulatedDisk(a_run().state())
    rekey(disk)
    return disk


def test_an_error_at_any_operation():
    """A failing operation is reported, nothing is lost, and running it again finishes."""
    before = [facts(entry) for entry in make_store(a_run()).entries()]
    log = rehearsed().log
    changing = [number for number, operation in enumerate(log) if operation.mutates]
    raised = 0
    for number in changing:
        disk = SimulatedDisk(a_run().state(), at(number, Fail(errno.ENOSPC, partial=True)))
        try:
            rekey(disk)
        except StorageError:
            raised += 1
        found = disk.restart()
        check_promises(found)
        rekey(found)
        check_finished(found, before)
    assert raised > len(changing) // 2


def test_retention_in_the_middle_keeps_what_it_promised():
    """A copy and its original count as one: keep 2 leaves two different states."""
    count = len(rehearsed().log)
    for number in range(count):
        disk = SimulatedDisk(a_run().state(), at(number, Kill()))
        try:
            rekey(disk)
        except Killed:
            disk = disk.restart()
        for path in [path for path in disk.paths() if path.name.endswith(layout.PIN_SUFFIX)]:
            disk.remove(path)
        store = make_store(disk, sealing=both(), allow_plain=True)
        store.recover()
        store.prune(newest(2))
        assert {entry.step for entry in store.entries()} == {3, 2}


def test_a_missing_key_changes_nothing():
    """A checkpoint under a third key is reported before anything changes."""
    disk = a_run()
    make_store(disk, sealing=Sealing("AES-GCM", b"\x07" * 32)).commit(draft(9))
    before = disk.state()
    with pytest.raises(WrongKeyError, match=r"CKP_rank_0-1_9.ckpt .*--old-key-file"):
        rekey(disk)
    assert disk.state() == before


def test_a_copy_that_was_spoilt_is_made_again():
    """If a crash left a copy beside its original, and the copy is damaged, the original is copied again."""
    disk = a_run()
    before = [facts(entry) for entry in make_store(disk).entries()]
    first_removal = next(
        number
        for number, operation in enumerate(rehearsed().log)
        if operation.kind == "rename"
        and operation.path.suffix == layout.MANIFEST_SUFFIX
        and operation.target.name.endswith(".tmp")
    )
    dying = SimulatedDisk(disk.state(), at(first_removal, Kill()))
    with pytest.raises(Killed):
        rekey(dying)
    found = dying.restart()
    copy = make_store(found, sealing=NEW).entries()[0]
    damage(found, copy.path)
    assert [one.name for one in rekey(found) if one.failure] == [copy.name]
    check_finished(found, before)


def test_a_child_under_the_new_key_is_linked_to_its_parents_copy():
    """A run that saved under the new key before it was rekeyed has one chain afterwards."""
    disk = a_run()
    make_store(disk, sealing=both(), allow_plain=True).commit(draft(4))
    rekey(disk)
    entries = make_store(disk, sealing=NEW).entries()
    assert [entry.step for entry in entries] == [4, 3, 2, 1]
    assert is_chain(entries)
