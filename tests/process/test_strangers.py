"""What the operating system refuses to a supervisor, and what a person does before it supervises anything."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest
from supervised import DEADLINE_S, wait_until

pytestmark = pytest.mark.process

REFUSED = """if True:
    import os, signal, socket
    from types import SimpleNamespace
    from resilient.wire.link import Link
    from supervisor.group.worker_processes import ProcessWorker
    link = Link(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0])
    stranger = SimpleNamespace(pid=1, poll=lambda: None)
    worker = ProcessWorker(stranger, link, [], complain=print)
    if os.getuid() == 0:
        os.setuid(65534)
    # Number 0 would reach no process.
    worker.signal(0)
    worker.signal(0)
"""


def test_a_program_of_another_user_is_named_and_not_the_end_of_the_supervisor():
    """It takes no signals from us (sudo, a setuid program): that is said, once."""
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("runs as another user and takes no signals from us") == 1


@pytest.mark.parametrize(
    "program", [("-m", "supervisor.command.cli"), None], ids=["module", "console script"]
)
def test_ctrl_c_before_anything_was_launched_is_one_line(tmp_path, program):
    """A command that gives the key is slow: status 130, no traceback, and nothing of it is left."""
    (tmp_path / "train.py").write_text("")
    start = program or (
        "-c",
        "import sys; from resilient.isolated import resilient_run; sys.exit(resilient_run())",
    )
    run = subprocess.Popen(
        [sys.executable, *start, "--key-command", "sleep 1000", "train.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ours = psutil.Process(run.pid)
    wait_until(
        lambda: any("sleep" in child.cmdline() for child in ours.children(recursive=True)), "the command"
    )
    children = ours.children(recursive=True)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 130
    assert err.count("\n") == 1
    assert err.startswith("resilient: stopped by SIGINT before anything was launched")
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]


HASTY = """if True:
    import signal
    import psutil
    from resilient.codec.keys import from_command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(60):
        try:
            from_command("sh -c 'kill -INT $PPID; exec sleep 1000'", "AES-GCM")
        except KeyboardInterrupt:
            print("interrupted")
    left = psutil.Process().children(recursive=True)
    print("left:", len(left))
    for child in left:
        child.kill()
"""


def test_ctrl_c_while_the_key_command_is_being_started_leaves_nothing():
    """It may come at any instant from the command's first on: the command has ended all the same."""
    done = subprocess.run([sys.executable, "-c", HASTY], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout.splitlines() == ["interrupted"] * 60 + ["left: 0"], done.stderr
