"""With core dumps allowed, and a real one where the system writes them to files: none holds a key."""

from __future__ import annotations

import base64
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from supervised import DEADLINE_S, is_alive, wait_until

from resilient.codec.keys import manifest_key
from resilient.config import Sealing, WorkerConfig
from resilient.saving import saver_process
from resilient.wire.link import Link
from resilient.wire.messages import Configure, TakeOver

pytestmark = pytest.mark.process

KEY = bytes(range(100, 132))
FORMS = (KEY, KEY.hex().encode(), base64.b64encode(KEY), manifest_key(KEY))
PATTERN = Path("/proc/sys/kernel/core_pattern")
needs_files = pytest.mark.skipif(
    "/" in PATTERN.read_text() or "|" in PATTERN.read_text(), reason="core dumps go elsewhere on this system"
)

TRAINING = """
    import os, signal, sys, threading, time
    from resilient.worker.session.session import current
    from resilient.host.shared_memory import SharedMemory
    kept = SharedMemory.create(1 << 20)
    # In the mirror alone: byte by byte, and from behind.
    for i, letter in enumerate(b"rorrim a ni etats eht"):
        kept.view(1000 - i, 1)[0] = letter
    assert current().config.sealing.key is not None
    print("process", os.getpid(), "is ready", flush=True)
    threading.Event().wait()
"""
STATE = b"the state in a mirror"


def allow_all():
    """As a person does it who wants core dumps, whatever limits this process has."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path("/proc/self/coredump_filter").write_text("0x33")


def can_have_all():
    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY


@pytest.fixture
def run(supervise, tmp_path, request):
    if not can_have_all():
        pytest.skip("the hard limit of core dumps is too low")
    key = tmp_path / "the-key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    options = ["--key-file", str(key), "--max-restarts", "0", *getattr(request, "param", ())]
    run = supervise(TRAINING, *options, before=allow_all, sealed=True)
    run.wait_for("is ready")
    return run


def worker_of(run):
    return int(run.out().split()[1])


def limit(pid):
    """The soft limit of a process, as the kernel tells it."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4] for line in lines if line.startswith("Max core file size"))


def dumps(folder):
    return [path for path in folder.rglob("core*") if path.is_file()]


@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_a_crash_leaves_no_core_dump(run, tmp_path, victim):
    """A limit that keeps file and handler away, no memory in one that is made by hand; and really none."""
    worker, supervisor = worker_of(run), run.process.pid
    for pid in (worker, supervisor):
        assert limit(pid) == "1"
        assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0
    os.kill(worker if victim == "worker" else supervisor, signal.SIGSEGV)
    run.end()
    wait_until(lambda: not is_alive(worker), "the worker's end")
    assert dumps(tmp_path) == []


def test_a_saver_that_crashes_leaves_none_either(tmp_path, monkeypatch):
    """The same of the process that seals, in both ways to start it."""
    if not can_have_all():
        pytest.skip("the hard limit of core dumps is too low")
    monkeypatch.chdir(tmp_path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        saver = subprocess.Popen(
            [*saver_process.COMMAND, str(theirs.fileno())], pass_fds=[theirs.fileno()], preexec_fn=allow_all
        )
    link = Link(ours)
    sealing = Sealing("AES-GCM", KEY)
    link.send(Configure(WorkerConfig(run_id="r", directory=tmp_path / "run", seed=1, sealing=sealing)))
    link.send(TakeOver())
    assert link.receive()[0].error == ""
    assert limit(saver.pid) == "1"
    saver.send_signal(signal.SIGSEGV)
    assert saver.wait(DEADLINE_S) == -signal.SIGSEGV
    assert dumps(tmp_path) == []


@needs_files
@pytest.mark.parametrize("run", [("--core-dumps",)], indirect=True)
def test_the_user_may_have_the_trainings(run, tmp_path):
    """--core-dumps: the training leaves one, without the state in the mirror; the supervisor leaves none."""
    assert "a core dump of the training holds the key" in run.err()
    os.kill(worker_of(run), signal.SIGSEGV)
    run.end()
    found = dumps(tmp_path)
    assert len(found) == 1
    assert STATE not in found[0].read_bytes()
    found[0].unlink()


@needs_files
def test_a_command_has_the_limits_of_whoever_starts_it(supervise, tmp_path):
    """--no-python: it holds no key of ours, and crashes as it does without us."""
    if not can_have_all():
        pytest.skip("the hard limit of core dumps is too low")
    run = supervise("kill -SEGV $$\n", "--max-restarts", "0", "--no-python", "sh", before=allow_all)
    run.end()
    assert len(dumps(tmp_path)) == 1


WAITS = """
    import os, threading
    print("process", os.getpid(), "is ready", flush=True)
    threading.Event().wait()
"""


def forbid_all():
    """As most systems have it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@pytest.mark.parametrize(
    ("before", "sealed", "wanted"),
    [(allow_all, False, "unlimited"), (forbid_all, False, "0"), (forbid_all, True, "0")],
)
def test_a_training_without_a_key_has_the_limits_of_whoever_starts_it(
    supervise, tmp_path, before, sealed, wanted
):
    """And no limit is raised, with a key or without one."""
    if before is allow_all and not can_have_all():
        pytest.skip("the hard limit of core dumps is too low")
    if sealed and PATTERN.read_text().startswith(("|", "@")):
        pytest.skip("a handler gets a dump whatever the limit, but for one byte")
    key = tmp_path / "the-key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    keys = ["--key-file", str(key)] if sealed else []
    run = supervise(WAITS, *keys, before=before, sealed=sealed)
    run.wait_for("is ready")
    assert limit(worker_of(run)) == wanted
