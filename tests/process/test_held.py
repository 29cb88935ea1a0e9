"""Processes that the kernel holds: frozen, asleep in it, and a supervisor that waits for none of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from supervised import TRAINING, events, is_alive, wait_until

pytestmark = pytest.mark.process

STEPS = TRAINING + "    step(1)\n    print('up', os.getpid(), flush=True)\n"


def worker_pid(run):
    run.wait_for("\n")
    return int(run.out().split()[1])


class Freezer:
    """A group whose processes all stand still when told, in either version of control groups."""

    def __init__(self, path):
        self.path = path
        self.path.mkdir()
        self.is_v1 = (path / "freezer.state").exists()

    def take(self, pid):
        (self.path / "cgroup.procs").write_text(str(pid))

    def freeze(self):
        self._set("FROZEN" if self.is_v1 else "1")

    def thaw(self):
        self._set("THAWED" if self.is_v1 else "0")

    def _set(self, value):
        (self.path / ("freezer.state" if self.is_v1 else "cgroup.freeze")).write_text(value)


@pytest.fixture
def freezer():
    """A freezer of our own; skipped where none can be made."""
    roots = map(Path, ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
    root = next((root for root in roots if os.access(root / "cgroup.procs", os.W_OK)), None)
    if root is None:
        pytest.skip("no control group can be made here that freezes processes")
    made = Freezer(root / f"resilient-test-{os.getpid()}")
    yield made
    made.thaw()
    wait_until(lambda: not (made.path / "cgroup.procs").read_text().split(), "the group's end")
    made.path.rmdir()


def test_a_frozen_tree_is_no_hang_when_it_goes_on(supervise, freezer):
    """Supervisor and worker stand still for longer than the limit, as in a suspended machine: nobody hung."""
    run = supervise(
        STEPS + "    for n in range(2, 30):\n        time.sleep(0.2)\n        step(n)\n",
        "--hang-timeout",
        "1.5",
    )
    freezer.take(run.process.pid)
    freezer.take(worker_pid(run))
    freezer.freeze()
    time.sleep(4)  # what is waited for is time itself
    freezer.thaw()
    assert run.end() == 0, run.err()
    assert events(run, "hang") == []
    assert len(events(run, "attempt")) == 1


def test_a_frozen_worker_is_told_and_replaced_once_it_dies(supervise, freezer):
    """It hangs, and not even SIGKILL reaches it; the supervisor says so, and goes on when it is gone."""
    script = STEPS + "    if attempt == 1: time.sleep(1000)\n"
    run = supervise(script, "--hang-timeout", "1.5", "--grace", "1")
    pid = worker_pid(run)
    freezer.take(pid)
    freezer.freeze()
    run.wait_for("the workers are killed now", "err")
    if freezer.is_v1:
        # The second version lets a frozen process die.
        assert is_alive(pid)
        run.wait_for("cannot be killed yet", "err")
    freezer.thaw()
    assert run.end() == 0, run.err()
    assert events(run, "incident_judged")[0]["kind"] == "hang"
    assert not is_alive(pid)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_worker_asleep_in_the_kernel_blocks_nobody(supervise, frozen_disk):
    """Asked to stop, the supervisor ends within its limits and says which process it leaves behind."""
    script = (
        STEPS
        + """
    sys.stdin.readline()
    with open(sys.argv[1], "wb") as file:
        file.write(b"x" * 1000000)
    """
    )
    run = supervise(script, "--grace", "1", arguments=[str(frozen_disk / "file")], stdin=subprocess.PIPE)
    pid = worker_pid(run)
    subprocess.run(["fsfreeze", "-f", frozen_disk], check=True)
    run.process.stdin.close()
    wait_until(lambda: state_of(pid) == "D", "a sleep that no signal ends")
    run.send(signal.SIGTERM)
    assert run.end() == 75, run.err()
    assert f"the kernel holds them: processes {pid}" in run.err()
    assert is_alive(pid)
    subprocess.run(["fsfreeze", "-u", frozen_disk], check=True)
    wait_until(lambda: not is_alive(pid), "the end of what was killed long ago")
