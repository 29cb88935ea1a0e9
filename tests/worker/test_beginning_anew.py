"""A worker, or a process without a supervisor, that finds nothing to resume from: may it begin from zero."""

from __future__ import annotations

import shutil

import pytest

from resilient.config import Sealing, WorkerConfig
from resilient.errors import CorruptError, ForeignError, UnusableError
from resilient.host.world import World
from resilient.policy.settings import Settings
from resilient.run.record_seal import Seal
from resilient.run.rundir import RunDirectory
from resilient.store.entry import Draft, FileFailure, skipped
from resilient.store.opening import open_store
from resilient.worker.session.open_places import OpenPlaces

KEY = b"\x01" * 32
SEALING = Sealing("AES-GCM", KEY)


def draft(step):
    return Draft("CKP", 1, step, step, [], b"", "schedule")


@pytest.fixture
def told():
    """What the person hears."""
    return []


@pytest.fixture
def opened(told):
    """Opens the places of a process; all are let go of at the end."""
    made = []

    def begin(config=None):
        made.append(OpenPlaces(config, World(), told.append, lambda: False))
        return made[-1]

    yield begin
    for places in made:
        places.close()


def worker(tmp_path, *saved_in):
    names = tuple(str(tmp_path / name) for name in saved_in)
    return WorkerConfig("run-1", tmp_path / "run", 1, sealing=SEALING, saved_in=names)


def in_place(tmp_path, name):
    return Settings(directory=tmp_path / name)


def commit(tmp_path, name, run_id="run-1"):
    open_store(tmp_path / name, World(), SEALING, run_id).commit(draft(1))


def test_a_run_that_has_saved_begins_nowhere_from_zero(tmp_path, opened, told):
    """Between two attempts the checkpoints have gone, or the script names another directory than before: both
    are refused, and where the checkpoints are is said. A new run begins in either."""
    for name in ("run", "out"):
        places = opened(worker(tmp_path))
        places.demand_fresh(places.open(in_place(tmp_path, name)))
        places.close()
    assert told == []
    places = opened(worker(tmp_path, "run"))
    with pytest.raises(UnusableError, match="has saved checkpoints, but none of them is in"):
        places.demand_fresh(places.open(in_place(tmp_path, "run")))
    places.close()
    commit(tmp_path, "run")
    places = opened(worker(tmp_path, "run"))
    with pytest.raises(UnusableError, match=f"there are checkpoints in {tmp_path / 'run'}"):
        places.demand_fresh(places.open(in_place(tmp_path, "out")))


def test_a_place_that_the_script_comes_to_later(tmp_path, opened, told):
    """One of several directories of the script's is empty, and another, which it has not named yet, is not:
    told, and no reason to refuse."""
    commit(tmp_path, "second")
    places = opened(worker(tmp_path, "first", "second"))
    places.demand_fresh(places.open(in_place(tmp_path, "first")))
    assert str(tmp_path / "second") in told[0]


def test_checkpoints_of_other_runs(tmp_path, opened, told):
    """In the run's own directory they mean that run.json is another run's; elsewhere two runs share it."""
    commit(tmp_path, "run", "another")
    commit(tmp_path, "out", "another")
    places = opened(worker(tmp_path))
    with pytest.raises(UnusableError, match="checkpoints of another run"):
        places.demand_fresh(places.open(in_place(tmp_path, "run")))
    places.demand_fresh(places.open(in_place(tmp_path, "out")))
    assert "one checkpoint of another run, and this run begins anew there" in told[0]


def test_without_a_supervisor(tmp_path, opened):
    """The first save is noted in run.json, which is sealed with the script's key; a process that resumes by
    itself and finds nothing is refused from then on."""
    settings = Settings(directory=tmp_path / "out", sealing=SEALING)
    places = opened()
    place = places.open(settings)
    places.demand_fresh(place)
    places.acknowledge(place.store.commit(draft(1)).path)
    places.close()
    found = RunDirectory(tmp_path / "out", World()).look([KEY])
    assert (found.record.saved, found.seal) == (True, Seal.SEALED)
    shutil.rmtree(tmp_path / "out" / "checkpoint")
    places = opened()
    with pytest.raises(UnusableError, match="has saved checkpoints"):
        places.demand_fresh(places.open(settings))


def test_without_a_supervisor_and_with_another_key(tmp_path, opened):
    """A record that another key has sealed is left as it is: nobody lends it a seal it should not have."""
    RunDirectory(tmp_path / "out", World(), keys=[b"\x02" * 32]).open()
    before = (tmp_path / "out" / "run.json").read_bytes()
    places = opened()
    place = places.open(Settings(directory=tmp_path / "out", sealing=SEALING))
    places.acknowledge(place.store.commit(draft(1)).path)
    assert (tmp_path / "out" / "run.json").read_bytes() == before


def test_many_checkpoints_of_other_runs_are_one_line():
    """In a shared directory; damage of the run's own is named by itself."""
    foreign = [FileFailure(f"{n}.ckpt", ForeignError("belongs to run x"), ours=False) for n in range(30)]
    lines = list(skipped([FileFailure("a.ckpt", CorruptError("is torn")), *foreign], "out"))
    assert lines == [
        "skipped an unusable checkpoint: a.ckpt: is torn",
        "skipped 30 checkpoints of other runs in out",
    ]
