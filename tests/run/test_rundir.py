"""The run directory: who a run is, and who works on it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from resilient.errors import BusyError, UnusableError
from resilient.host.files import DiskFiles
from resilient.host.world import World
from resilient.run.rundir import COMPLETE, RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run", World())


def test_a_new_run_is_somebody_and_stays_it(run):
    """A random id and seed are chosen once; the next process reads the same ones."""
    first = run.open()
    assert run.open() == first
    assert RunDirectory(run.root, World()).read() == first
    assert 0 <= first.seed < 2**31
    other = RunDirectory(run.root.with_name("other"), World()).open()
    assert (other.run_id, other.seed) != (first.run_id, first.seed)


def test_reading_makes_nothing(run):
    """Reading a directory that holds no run changes nothing."""
    assert run.read() is None
    assert not run.root.exists()


def test_what_is_written_is_read(run):
    """Every field reads back, tuples too; only the owner can read the file, and no temporary file stays."""
    record = replace(run.open(), status=COMPLETE, command=("a.py", "-x"), checkpoints=("/c",), attempts=3)
    run.write(record)
    assert run.read() == record
    assert [path.name for path in run.root.iterdir()] == ["run.json"]
    assert stat.S_IMODE((run.root / "run.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(run.root.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content", ["", "{torn", "[]", "{}", '{"run_id": 3, "created": 0, "seed": 1, "salt": ""}']
)
def test_a_damaged_record_is_no_reason_to_start_over(run, content):
    """A damaged record is rejected, and the file stays unchanged."""
    run.open()
    (run.root / "run.json").write_text(content)
    with pytest.raises(UnusableError, match="damaged"):
        run.open()
    assert (run.root / "run.json").read_text() == content


def test_fields_of_a_later_version_are_left_alone(run):
    """A record with unknown fields can be read."""
    record = run.open()
    content = json.loads((run.root / "run.json").read_text())
    (run.root / "run.json").write_text(json.dumps({**content, "from_the_future": 1}))
    assert run.read() == record


def test_checkpoints_without_a_record_are_not_given_a_new_owner(run):
    """Checkpoints without run.json are rejected: a new run id would make all of them foreign."""
    place = run.root / "checkpoint" / "rank_0"
    place.mkdir(parents=True)
    (place / "CKP_rank_0-1_1.ckpt").write_bytes(b"stock's own: no manifest")
    assert run.read() is None
    (place / "CKP_rank_0-1_1.manifest").write_bytes(b"{}")
    with pytest.raises(UnusableError, match=r"no run\.json"):
        run.open()


HOLD = """
import sys
from pathlib import Path
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
lock = RunDirectory(Path(sys.argv[1]), World()).lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_run_has_one_owner_at_a_time(run):
    """The second process gets an error that names the first; the death of the first frees the run."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(BusyError, match=f"in use by process {holder.pid}") as caught:
        run.lock()
    assert caught.value.pid == holder.pid
    holder.kill()
    holder.communicate()
    lock = run.lock()
    assert json.loads((run.root / "lock").read_text())["pid"] == os.getpid()
    lock.release()
    run.lock().release()


class HeldForAnInstant(DiskFiles):
    """A disk on which a tool checks a lock at the moment of the first attempt to take it."""

    looks = 1

    def lock(self, path, owner):
        if self.looks:
            self.looks -= 1
            raise BusyError("somebody looks", pid=0)
        return super().lock(path, owner)


def test_who_only_looks_is_waited_for(tmp_path):
    """`resilient status` at the very moment of a run's start does not make the start fail."""
    files = HeldForAnInstant()
    RunDirectory(tmp_path / "run", World(files=files)).lock().release()
    assert files.looks == 0


def test_the_pid_of_a_stale_lock_says_nothing(run):
    """A lock file whose pid belongs to a living process that does not hold it is taken over."""
    run.root.mkdir()
    (run.root / "lock").write_text(json.dumps({"pid": os.getppid(), "boot_id": "another"}))
    run.lock().release()
