"""Which keys a run needs: which checkpoints open, which are locked, and whether the newest is locked."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from store_world import DIRECTORY, GCM, KEY, OTHER_KEY, ROOT, draft, filled, make_store

from chaos.faults import Fail
from chaos.seeded_entropy import SeededEntropy
from chaos.stepped_clock import SteppedClock
from resilient.codec.keys import key_id
from resilient.config import Sealing
from resilient.host.world import World
from resilient.run import reach
from resilient.run.places import Places
from resilient.run.rundir import RunRecord
from resilient.store import manifest

OTHER = Sealing("AES-GCM", OTHER_KEY)
READING = ("open", "read")
OLD_ID, NEW_ID = key_id(KEY), key_id(OTHER_KEY)


def look(disk, sealing, accepted=(), places=None, told=(NEW_ID,)):
    record = RunRecord("run-1", 0.0, 1, "00" * 16, accepted=accepted, key_id=OLD_ID, key_ids=told)
    world = World(disk, SteppedClock(), SeededEntropy(1))
    return reach.look(world, places or Places.alone(ROOT), record, sealing)


def opening(sealing, *old):
    return Sealing(sealing.mode, sealing.key, old)


def test_everything_under_one_key():
    """It opens with that key alone, and with no other."""
    disk, _ = filled(2)
    found = look(disk, GCM)
    assert (found.whole, found.ahead, found.key_ids) == (True, None, {OLD_ID})
    assert (found.opens_with(OLD_ID), found.opens_with(NEW_ID), found.opens_with(None)) == (
        True,
        False,
        False,
    )


def test_an_empty_run_needs_no_key():
    """An empty run opens with any key and without one."""
    disk, _ = filled(0)
    found = look(disk, GCM)
    assert (found.whole, found.opens_with(OLD_ID), found.opens_with(None)) == (True, True, True)


def test_the_newest_state_is_ahead_of_what_opens():
    """With the newer key missing it is named; with the older one missing nothing is ahead."""
    disk, _ = filled(2)
    make_store(disk, sealing=opening(OTHER, KEY)).commit(draft(3))
    behind = look(disk, GCM)
    assert (behind.ahead.name, behind.ahead.key_id) == ("CKP_rank_0-1_3.ckpt", NEW_ID)
    after = look(disk, OTHER)
    assert (after.ahead, after.whole, len(after.locked)) == (None, False, 2)
    both = look(disk, opening(OTHER, KEY))
    assert (both.whole, both.opens_with(NEW_ID), both.key_ids) == (True, False, {OLD_ID, NEW_ID})


def test_a_key_of_the_scripts_own_is_its_own_affair():
    """A checkpoint under a key that the run was never configured with is the script's concern."""
    disk, _ = filled(2)
    make_store(disk, sealing=opening(OTHER, KEY)).commit(draft(3))
    found = look(disk, GCM, told=())
    assert (found.whole, found.ahead, found.opens_with(OLD_ID)) == (True, None, True)


def test_ranks_and_places_count_each():
    """Checkpoints of another rank, or in another place, need their key too."""
    disk, _ = filled(1)
    place = Path("/elsewhere")
    for folder in (place / "checkpoint" / "rank_0", ROOT / "checkpoint" / "rank_5"):
        disk.make_directory(folder)
    for name in ("CKP_rank_0-1_1.ckpt", "CKP_rank_0-1_1.manifest"):
        disk.put(place / "checkpoint" / "rank_0" / name, disk.content(DIRECTORY / name))
    rank_5 = ROOT / "checkpoint" / "rank_5" / "CKP_rank_5-1_1"
    inner = json.loads(disk.content(DIRECTORY / "CKP_rank_0-1_1.manifest"))["manifest"]
    inner |= {"rank": 5, "file_name": "CKP_rank_5-1_1.ckpt"}
    mac = manifest._mac(inner, KEY).hex()
    disk.put(rank_5.with_name("CKP_rank_5-1_1.manifest"), manifest._file_of(inner, mac))
    places = Places(ROOT, (place, ROOT), frozenset(), (), (), ())
    assert sorted(one.name for one in look(disk, OTHER, places=places).locked) == [
        "CKP_rank_0-1_1.ckpt",
        "CKP_rank_0-1_1.ckpt",
        "CKP_rank_5-1_1.ckpt",
    ]


def test_a_missing_place_is_no_certainty():
    """A missing place may hold checkpoints under any key."""
    disk, _ = filled(1)
    found = look(disk, GCM, places=Places(ROOT, (ROOT,), frozenset(), (), (Path("/gone"),), ()))
    assert (found.whole, found.opens_with(OLD_ID), found.ahead) == (False, False, None)


def test_what_cannot_be_read_is_no_certainty():
    """An unreadable manifest may be under any key."""
    disk, store = filled(2)
    path = store.entries()[0].manifest_path
    disk.obey(lambda n, o: Fail(errno.EACCES) if o.path == path and o.kind in READING else None)
    assert not look(disk, GCM).opens_with(OLD_ID)


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_not_encrypted(taken):
    """It needs no key. Unless the user accepted it as the run's, anybody may have written it: it hides
    nothing."""
    disk, _ = filled(1)
    entry = make_store(disk, sealing=Sealing(), allow_plain=True).commit(draft(2))
    accepted = (entry.digest,) if taken else ()
    found = look(disk, OTHER, accepted)
    assert [(one.key_id, one.ahead) for one in found.locked] == [(OLD_ID, not taken)]
    assert look(disk, GCM, accepted).opens_with(OLD_ID)
    assert not look(disk, Sealing(), accepted).opens_with(None)


@pytest.mark.parametrize("kind", ["gone", "unreadable", "nonsense"])
def test_what_is_locked_and_then_not_there(kind):
    """If a locked manifest vanishes before the second look, no key is needed; if it cannot be read or makes
    no sense, it may be the newest."""
    disk, store = filled(1)
    path = store.entries()[0].manifest_path
    if kind == "nonsense":
        inner = {**json.loads(disk.content(path))["manifest"], "generation": "many"}
        disk.put(path, manifest._file_of(inner, manifest._mac(inner, KEY).hex()))
    looks = []

    def plan(number, operation):
        if operation.path == path and operation.kind in READING:
            looks.append(number)
            if len(looks) == 2 and kind == "gone":
                disk.remove(path)
            if len(looks) == 2 and kind == "unreadable":
                return Fail(errno.EACCES)
        return None

    disk.obey(plan)
    found = look(disk, OTHER)
    said = {"gone": [], "unreadable": [("?", True)], "nonsense": [(OLD_ID, True)]}[kind]
    assert [(one.key_id, one.ahead) for one in found.locked] == said
