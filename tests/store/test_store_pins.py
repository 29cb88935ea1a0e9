"""Pins: a pinned checkpoint survives retention, recovery and crashes."""

from __future__ import annotations

import errno

import pytest
from store_world import DIRECTORY, GCM, damage, draft, filled, make_store, names, newest, steps

from chaos.crashes import ends, moments
from chaos.faults import Fail
from chaos.simulated_disk import SimulatedDisk
from resilient.errors import StorageError
from resilient.store import layout, pins

TOKEN = "0" * 16


def entry_of(store, step):
    return next(entry for entry in store.entries() if entry.step == step)


def test_a_pinned_checkpoint_stays_and_counts_for_nothing():
    """Retention keeps the pinned one besides the promised number; without its pin it goes."""
    disk, store = filled(5)
    pins.pin(disk, entry_of(store, 2), TOKEN)
    store.prune(newest(2))
    assert steps(store) == [5, 4, 2]
    pins.unpin(disk, entry_of(store, 2))
    store.prune(newest(2))
    assert steps(store) == [5, 4]
    assert not any(name.endswith(layout.PIN_SUFFIX) for name in names(disk))


def test_a_pinned_newest_does_not_take_the_place_of_another():
    """With the newest pinned, keep 1 leaves one more that is not pinned."""
    disk, store = filled(3)
    pins.pin(disk, entry_of(store, 3), TOKEN)
    store.prune(newest(1))
    assert steps(store) == [3, 2]


def test_recovery_leaves_pins_alone():
    """Pins survive the recovery of a folder; it removes a half-written one."""
    disk, store = filled(3)
    pins.pin(disk, entry_of(store, 1), TOKEN)
    disk.put(DIRECTORY / layout.temporary("CKP_rank_0-1_2.pin", TOKEN), b"{")
    again = make_store(disk)
    again.recover()
    again.prune(newest(1))
    assert steps(again) == [3, 1]
    assert [n for n in names(disk) if "pin" in n] == ["CKP_rank_0-1_1.pin"]


def test_a_pin_is_for_one_checkpoint_only():
    """A pin whose checkpoint is gone does not apply to a new one with the same name."""
    disk, store = filled(2)
    gone = entry_of(store, 2)
    pins.pin(disk, gone, TOKEN)
    for path in (gone.path, gone.manifest_path):
        disk.remove(path)
    fresh = make_store(disk)
    fresh.commit(draft(3))
    fresh.commit(draft(2))
    assert entry_of(fresh, 2).name == gone.name
    fresh.commit(draft(4))
    fresh.prune(newest(1))
    assert steps(fresh) == [4]
    pins.remove_stale(disk, fresh.entries())
    assert not any(name.endswith(layout.PIN_SUFFIX) for name in names(disk))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"generation": 1}', b"\xff"])
def test_an_unreadable_pin_keeps(content):
    """A pin with any unreadable content still keeps the checkpoint."""
    disk, store = filled(3)
    disk.put(DIRECTORY / "CKP_rank_0-1_1.pin", content)
    store.prune(newest(1))
    assert steps(store) == [3, 1]


def test_a_pin_that_vanishes_while_it_is_looked_at_keeps_nothing():
    """If a pin vanishes after the listing, retention continues as without it."""
    disk, store = filled(3)
    entry = entry_of(store, 1)
    pins.pin(disk, entry, TOKEN)
    path = DIRECTORY / layout.pin_of(entry.name)
    taken = []

    def plan(number, operation):
        if (operation.kind, operation.path) == ("read", path) and not taken:
            taken.append(number)
            disk.remove(path)
        return None

    disk.obey(plan)
    assert pins.pinned(disk, store.entries()) == set()
    assert taken
    store.prune(newest(1))
    assert steps(store) == [3]


def test_nothing_goes_while_the_pins_cannot_be_seen():
    """If the folder cannot be listed any more, an error is raised and no checkpoint is removed."""
    disk, _ = filled(3)
    listings = []

    def plan(number, operation):
        if operation.kind == "names" and operation.path == DIRECTORY:
            listings.append(number)
        return Fail(errno.EACCES) if len(listings) > 1 and number == listings[-1] else None

    store = make_store(disk.restart(plan))
    with pytest.raises(StorageError):
        store.prune(newest(1))
    assert len(filled(3)[1].entries()) == 3
    assert steps(make_store(disk)) == [3, 2, 1]


@pytest.mark.parametrize("act", ["pin", "unpin"])
def test_a_crash_while_pinning(act):
    """After a crash at any moment the checkpoint is pinned or not, and the folder is as whole as before."""
    disk, store = filled(2)
    entry = entry_of(store, 1)
    if act == "unpin":
        pins.pin(disk, entry, TOKEN)
    seen = []

    def run():
        pins.pin(disk, entry, "1" * 16) if act == "pin" else pins.unpin(disk, entry)

    moments(disk, run, lambda state: seen.extend(ends(state)))
    outcomes = set()
    for state in seen:
        found = SimulatedDisk(state)
        store = make_store(found)
        recovery = store.recover()
        assert (recovery.quarantined, recovery.failures) == ((), ())
        outcomes.add(entry.name in pins.pinned(found, store.entries()))
        assert steps(store) == [2, 1]
        assert not any(layout.is_temporary(name) for name in names(found))
    assert outcomes == {True, False}
    assert (entry.name in pins.pinned(disk, store.entries())) == (act == "pin")


def test_a_corrupt_pinned_checkpoint_fills_no_place():
    """A damaged pinned checkpoint is detected when it is read; it never replaced another in the count."""
    disk, store = filled(4)
    pins.pin(disk, entry_of(store, 1), TOKEN)
    damage(disk, entry_of(store, 1).path)
    fresh = make_store(disk, sealing=GCM)
    fresh.prune(newest(2))
    assert [entry.step for entry in fresh.entries()] == [4, 3, 1]
