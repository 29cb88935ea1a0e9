"""What a dead worker has left and could not be saved: in the way of what comes next, and told at the end."""

from __future__ import annotations

import os

import pytest
from played import committed
from save_requests_bench import SaveRequestsBench
from slots import write

from supervisor.verdict.readiness import ObstacleKind


@pytest.fixture
def ready():
    made = SaveRequestsBench()
    made.get_ready()
    yield made
    made.close()


def fail_to_save(ready, error="No space left on device", **more):
    """A dead worker's newest step is to be saved for it, and is not."""
    ready.save_requests.save_newer(ready.standing(0), "killed", failure=True)
    assert ready.asked == [3]
    ready.answer(committed(3, error=error, **more))


def test_what_could_not_be_saved_is_in_the_way_until_it_is(ready):
    """It is asked for again as what it was; then nothing is left to wait for."""
    assert ready.save_requests.obstacle(ready.standing(0)) is None
    fail_to_save(ready)
    found = ready.save_requests.obstacle(ready.standing(0))
    assert (found.kind, found.may_pass, found.fatal) == (ObstacleKind.SAVING, True, True)
    assert found.reason == ready.save_requests.unsaved(ready.standing(0))
    assert "step 3 was left in memory, and could NOT be saved: No space left" in found.reason
    ready.save_requests.save_again(ready.standing(0))
    ready.save_requests.save_again(ready.standing(0))
    message, sent = ready.children.last.hear()
    os.close(*sent)
    assert (message.slot.step, message.reason, message.failure) == (3, "killed", True)
    assert ready.asked == []
    assert ready.save_requests.obstacle(ready.standing(0)) == found
    ready.answer(committed(3))
    assert ready.save_requests.obstacle(ready.standing(0)) is None
    assert ready.save_requests.unsaved(ready.standing(0)) == ""


def test_it_is_told_by_the_name_of_the_file(ready):
    """That of the temporary one, which is another each time, says nothing to a person."""
    fail_to_save(ready, error="cannot write /run/.CKP_rank_0-1_3.ckpt.0123456789abcdef.tmp: No space left")
    assert ready.save_requests.unsaved(ready.standing(0)).endswith(
        ": cannot write /run/CKP_rank_0-1_3.ckpt: No space left"
    )


def test_what_is_not_gone_on_from_holds_nothing_up_for_long(ready):
    """A state that was set aside: the next attempt does not need it."""
    fail_to_save(ready)
    assert not ready.save_requests.obstacle(ready.standing(0, usable=False)).fatal


def test_older_memory_than_the_disk_s_is_nothing_to_wait_for(ready):
    """Its step is on disk in another checkpoint."""
    fail_to_save(ready)
    assert ready.save_requests.obstacle(ready.standing(3)) is None
    assert ready.save_requests.unsaved(ready.standing(3)) == ""


def test_memory_that_cannot_be_read_is_not_waited_for(ready):
    """Nor asked for again; but it is told, until the next attempt has it."""
    fail_to_save(ready, error="no sense", lasting=True)
    assert ready.save_requests.obstacle(ready.standing(0)) is None
    assert "no sense" in ready.save_requests.unsaved(ready.standing(0))
    ready.save_requests.save_newer(ready.standing(0), "killed", failure=True)
    assert not ready.save_requests.busy
    ready.save_requests.offer(ready.standing(0))
    ready.save_requests.save_newer(ready.standing(0), "end", failure=False)
    assert not ready.save_requests.busy
    assert ready.save_requests.unsaved(ready.standing(0)) == ""
    write(ready.mirror, 4)
    ready.save_requests.save_newer(ready.standing(0), "end", failure=False)
    assert ready.asked == [4]


def test_what_is_still_on_its_way_at_the_end_is_not_saved(ready):
    """A disk that does not answer: what is known then is that nothing is known to be safe."""
    ready.save_requests.save_newer(ready.standing(0), "killed", failure=True)
    assert "could NOT be saved in time" in ready.save_requests.unsaved(ready.standing(0))
    assert ready.save_requests.unsaved(ready.standing(3)) == ""
