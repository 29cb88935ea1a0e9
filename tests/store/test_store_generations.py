"""A later commit is newer, even if other manifests were unreadable or claim anything."""

from __future__ import annotations

import errno
import json

import pytest
from store_world import DIRECTORY, KEY, OTHER_KEY, Sinks, draft, filled, make_store, newest, steps

from chaos.faults import Fail
from resilient.codec.keys import key_id
from resilient.config import Sealing
from resilient.store import manifest


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_is_older_than_what_is_saved_meanwhile(code):
    """A save while the newest manifests cannot be read is the newest once they can be read again."""
    disk, _ = filled(4)
    bad = {DIRECTORY / f"CKP_rank_0-1_{step}.manifest" for step in (3, 4)}
    troubled = disk.restart(lambda n, o: Fail(code) if o.kind == "read" and o.path in bad else None)
    make_store(troubled).commit(draft(5))
    store = make_store(troubled.restart())
    assert steps(store) == [5, 4, 3, 2, 1]
    store.prune(newest(1))
    assert steps(store) == [5]


def test_a_forged_claim_does_not_hide_what_is_saved_after_it():
    """A planted manifest under an unknown key, meant to exhaust the generations, changes no order."""
    disk, store = filled(1)
    claimed = {**json.loads(disk.content(store.entries()[0].manifest_path))["manifest"]}
    claimed |= {"generation": 2**40 - 1, "file_name": "CKP_rank_0-9_9.ckpt", "key_id": key_id(OTHER_KEY)}
    disk.put(DIRECTORY / "CKP_rank_0-9_9.manifest", manifest._file_of(claimed, "00" * 32))
    for step in range(2, 7):
        make_store(disk).commit(draft(step))
    fresh = make_store(disk)
    assert steps(fresh) == [6, 5, 4, 3, 2, 1]
    assert fresh.load_newest(Sinks()).entry.step == 6
    fresh.prune(newest(2))
    assert steps(fresh) == [6, 5]


def test_a_missing_key_keeps_its_place_in_the_order():
    """Generations continue after those of checkpoints whose key is missing, in every later process."""
    disk, _ = filled(2)
    for step in (3, 4):
        make_store(disk, sealing=Sealing("AES-GCM", OTHER_KEY)).commit(draft(step))
    both = make_store(disk, sealing=Sealing("AES-GCM", OTHER_KEY, old_keys=(KEY,)))
    assert steps(both) == [4, 3, 2, 1]
