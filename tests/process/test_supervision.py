"""A real supervisor and real workers that really die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from supervised import events, is_alive, wait_until

pytestmark = pytest.mark.process

# Completes steps, as far as the supervisor can tell, and then does what its arguments say.
STEPS = """
    import os, signal, sys, time
    from resilient.worker.session.session import current
    attempt = current().config.attempt
    current().tell_step(10 * attempt)
"""


def record(run):
    return json.loads((run.folder / "run" / "run.json").read_text())


def test_a_clean_script_is_complete_and_stays_so(supervise):
    """Exit 0, status complete; the same command again says so and runs nothing."""
    run = supervise("print('hello')")
    assert run.end() == 0
    assert run.out() == "hello\n"
    assert record(run)["status"] == "complete"
    again = supervise("print('hello')")
    assert again.end() == 0
    assert again.out() == ""
    assert "is complete, there is nothing left to do" in again.err()


def test_what_is_complete_is_so_for_its_own_command_alone(supervise, tmp_path):
    """Another script, or other arguments, did not run: that is no success, and the way out is told."""
    (tmp_path / "other.py").write_text("print('other')")
    assert supervise("print('hello')").end() == 0
    for options, arguments in (((), ("--epochs", "5")), (("other.py",), ())):
        run = supervise("print('hello')", *options, arguments=arguments)
        assert run.end() == 64
        assert run.out() == ""
        assert "is complete, with another command" in run.err()
        assert "--fresh --archive, or another --run-dir" in run.err()
    assert supervise("print('hello')").end() == 0


def test_two_scripts_of_one_name_do_not_share_a_run(tmp_path):
    """Where nobody has named a directory; who names it goes on with it."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").write_text(f"print({folder!r}); raise SystemExit(3)")

    def start(*words):
        command = [
            sys.executable,
            "-m",
            "supervisor.command.cli",
            "--no-encrypt",
            "--max-restarts",
            "0",
            *words,
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert start("a/train.py").returncode == 3
    other = start("b/train.py")
    assert (other.returncode, other.stdout) == (64, "")
    assert "runs/train holds the run of another script (a/train.py)" in other.stderr
    assert start("./a/train.py", "-x").stdout == "a\n"
    assert start("--run-dir", "runs/train", "b/train.py").stdout == "b\n"


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("sys.exit(3)", 3),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139),
        ("os.abort()", 134),
        ("raise ValueError('no')", 1),
        ("os._exit(0)", 1),
    ],
)
def test_the_run_ends_with_the_scripts_own_status(supervise, ending, status):
    """Given up after its restarts, the run has the status of the script, 128+N for signal N."""
    run = supervise(STEPS + f"    {ending}\n", "--max-restarts", "1")
    assert run.end() == status, run.err()
    assert len(events(run, "attempt")) == 2
    assert "giving up" in run.err().splitlines()[-1]
    assert record(run)["status"] == "failed"


def test_the_same_failure_at_the_start_is_tried_twice(supervise):
    """A script that fails before its first step is not tried again and again."""
    run = supervise("import no_such_module")
    assert run.end() == 1
    assert len(events(run, "attempt")) == 2
    assert "same way twice" in run.err().splitlines()[-1]
    assert "No module named 'no_such_module'" in run.err()


def test_a_failure_is_followed_by_a_restart(supervise):
    """The second attempt may succeed; then the run is complete."""
    run = supervise(STEPS + "    sys.exit(0 if attempt == 2 else 5)\n")
    assert run.end() == 0, run.err()
    assert [line["kind"] for line in events(run, "incident_judged")] == ["exited", "finished"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_stop_is_passed_on_once_and_ends_with_75(supervise, number):
    """The worker gets the signal that the supervisor got, once, and nothing is started again."""
    run = supervise(
        """
        import signal, sys, time
        got = []
        signal.signal(int(sys.argv[1]), lambda number, frame: got.append(number))
        print("ready", flush=True)
        while not got:
            time.sleep(0.01)
        time.sleep(0.3)
        print("got", got, flush=True)
        sys.exit(9)
        """,
        arguments=[str(int(number))],
    )
    run.wait_for("ready")
    run.send(number)
    run.send(number) if number != signal.SIGINT else None
    assert run.end() == 75, run.err()
    assert f"got [{int(number)}]" in run.out()
    assert record(run)["status"] == "stopped"
    assert len(events(run, "attempt")) == 1
    assert "stopped by" in run.err().splitlines()[-1]


STUBBORN = """
    import signal, time
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)
"""


def test_after_the_grace_a_stubborn_worker_is_killed(supervise):
    """A worker that ignores the request ends with SIGKILL when the grace is over."""
    run = supervise(STUBBORN, "--grace", "0.5")
    run.wait_for("ready")
    run.send(signal.SIGTERM)
    assert run.end() == 75, run.err()
    assert "killed now" in run.err()


def test_a_second_ctrl_c_ends_at_once(supervise):
    """The person means it: no grace is waited for."""
    run = supervise(STUBBORN, "--grace", "500")
    run.wait_for("ready")
    run.send(signal.SIGINT)
    run.wait_for("Ctrl-C again", "err")
    run.send(signal.SIGINT)
    assert run.end() == 75, run.err()


def test_a_stop_while_waiting_ends_the_wait(supervise):
    """Between two attempts nothing holds the supervisor up."""
    run = supervise(STEPS + "    sys.exit(4)\n", "--backoff", "500:600")
    run.wait_for("starting again in", "err")
    run.send(signal.SIGTERM)
    assert run.end() == 75, run.err()


def test_output_passes_unchanged_and_is_kept(supervise):
    """Every byte, on the stream it was written to; and the attempt's log has both."""
    run = supervise(
        r"""
        import sys
        sys.stdout.buffer.write(bytes(range(256)) * 10_000)
        sys.stderr.write("on stderr\n")
        """
    )
    assert run.end() == 0
    assert run.raw_out() == bytes(range(256)) * 10_000
    assert "on stderr\n" in run.err()
    log = (run.folder / "run" / "logs" / "attempt_0001" / "rank_0.log").read_bytes()
    assert bytes(range(256)) * 10_000 in log.replace(b"on stderr\n", b"")


def test_nobody_reading_our_output_does_not_hurt_the_run(tmp_path):
    """A closed pipe (head, a terminal that is gone) ends neither the worker nor the supervisor."""
    script = tmp_path / "chatty.py"
    script.write_text("for n in range(20000): print('line', n)\nopen('done', 'w')\n")
    words = ["--no-encrypt", "--run-dir", "run", str(script)]
    command = [sys.executable, "-m", "supervisor.command.cli", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.close()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()
    log = (tmp_path / "run" / "logs" / "attempt_0001" / "rank_0.log").read_text()
    assert "line 19999" in log


def test_what_a_worker_leaves_behind_is_cleared_away(supervise):
    """A grandchild in a session of its own does not outlive the attempt."""
    run = supervise(
        """
        import subprocess, sys
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print("child", child.pid, flush=True)
        """
    )
    assert run.end() == 0
    assert not is_alive(int(run.out().split()[1]))


def test_a_killed_supervisor_takes_its_worker_along(supervise):
    """No worker goes on without a supervisor."""
    run = supervise("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(600)")
    run.wait_for("pid ")
    run.wait_for("\n")
    pid = int(run.out().split()[1])
    run.send(signal.SIGKILL)
    run.end()
    wait_until(lambda: not is_alive(pid), "the worker ends")


def test_a_run_belongs_to_one_supervisor(supervise):
    """A second one says who has it, with status 64; when the first is gone the run is free."""
    first = supervise("import time\nprint('ready', flush=True)\ntime.sleep(600)")
    first.wait_for("ready")
    second = supervise("print('never')")
    assert second.end() == 64
    assert f"is in use by process {first.process.pid}" in second.err()
    first.send(signal.SIGKILL)
    first.end()
    third = supervise("print('mine')")
    assert third.end() == 0, third.err()
    assert third.out() == "mine\n"


def test_stdin_is_the_workers(supervise, tmp_path):
    """A script that reads its standard input gets it."""
    (tmp_path / "input").write_text("some words\n")
    with open(tmp_path / "input") as stdin:
        run = supervise("print(input().upper())", stdin=stdin)
        assert run.end() == 0
    assert run.out() == "SOME WORDS\n"


def test_each_attempt_reads_the_same_stdin(supervise):
    """Piped words are there again after a kill; an open pipe holds up neither the start nor the end."""
    run = supervise(
        """
        import os, signal, sys
        print(sys.stdin.readline().upper(), flush=True)
        from resilient.worker.session.session import current
        if current().config.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        stdin=subprocess.PIPE,
    )
    run.process.stdin.write(b"some words\nmore\n")
    run.process.stdin.flush()
    assert run.end() == 0, run.err()
    assert run.out() == "SOME WORDS\n\n" * 2


def test_any_command_is_supervised(tmp_path):
    """--no-python: exit 0 is complete, anything else is tried again."""
    words = ["--no-encrypt", "--backoff", "0:0", "--run-dir", "run", "--no-python"]
    command = [sys.executable, "-m", "supervisor.command.cli", *words, "sh", "-c"]
    program = "test -e once && echo there || { touch once; exit 4; }"
    done = subprocess.run([*command, program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "there\n"), done.stderr


def test_a_run_in_the_way_is_never_overwritten(supervise):
    """--fresh refuses it; --fresh --archive moves it aside."""
    assert supervise("print(1)").end() == 0
    refused = supervise("print(2)", "--fresh")
    assert refused.end() == 64
    assert "holds a run already" in refused.err()
    fresh = supervise("print(3)", "--fresh", "--archive")
    assert fresh.end() == 0
    assert fresh.out() == "3\n"
    assert (fresh.folder / "run.archived-1" / "run.json").exists()


def test_a_damaged_record_is_not_started_over(supervise):
    """A run.json that makes no sense is no reason to forget the run: status 65."""
    run = supervise("print(1)")
    assert run.end() == 0
    (run.folder / "run" / "run.json").write_text("{torn")
    again = supervise("print(2)")
    assert again.end() == 65
    assert "run.json is damaged" in again.err()


def test_a_directory_that_cannot_be_written_is_refused(supervise, tmp_path):
    """A file where the run directory should be: status 64, and which it is."""
    (tmp_path / "taken").write_text("")
    run = supervise("print(1)", "--run-dir", str(tmp_path / "taken" / "run"))
    assert run.end() == 64
    assert "cannot be used" in run.err()


def test_a_file_system_that_takes_no_directories_is_refused(supervise):
    """Where the kernel makes no directory: status 64 and a line, no traceback."""
    run = supervise("print(1)", "--run-dir", "/proc/nowhere/run")
    assert run.end() == 64
    assert "cannot be used" in run.err()
    assert "Traceback" not in run.err()


def test_a_run_whose_last_state_is_not_on_disk_is_not_complete(supervise):
    """The script has finished and its end could not be saved: 75, and the same command tries again.

    The words go by what lies on the disk: a message about it, as here, is none.
    """
    tell = (
        "from resilient.worker.session.session import current\n"
        "from resilient.wire.messages import CheckpointSaved\n"
        "def tell_saved(step):\n"
        "    current().tell(CheckpointSaved(step, 1, 'CKP', 'schedule', 0.1, '/nowhere', 0))\n"
    )
    script = tell + "tell_saved(4)\ncurrent().tell_failed_save(9, 'no space')\n"
    run = supervise(script)
    assert run.end() == 75
    assert "step 9 could NOT be saved; nothing was saved yet" in run.err().splitlines()[-1]
    assert record(run)["status"] == "stopped"
    # What this script says of its saves is not on disk: somebody has to say that this is no loss.
    again = supervise(script + "tell_saved(9)\n", "--accept-rollback")
    assert again.end() == 0
    assert "saving works again, after it failed once" in again.err()
    assert record(again)["status"] == "complete"


def test_failing_saves_do_not_flood_the_console(supervise):
    """One line for many failures in a row; the journal has each of them."""
    script = "from resilient.worker.session.session import current\n"
    script += "for step in range(1, 51): current().tell_failed_save(step, 'no space')\n"
    run = supervise(script)
    run.end()
    assert run.err().count("FAILED: no space") == 1
    assert len(events(run, "save_failed")) == 50


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "missing"),
        (b"short", 0o600, "bytes"),
        (b"k" * 32, 0o644, "read by others"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(tmp_path, content, mode, said):
    """Missing, of the wrong length, or readable by others: status 64, before anything runs."""
    key, script = tmp_path / "key", tmp_path / "script.py"
    script.write_text("print('ran')")
    if content is not None:
        key.write_bytes(content)
        os.chmod(key, mode)
    command = [sys.executable, "-m", "supervisor.command.cli", "--key-file", str(key), str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (64, ""), done.stderr
    assert str(key) in done.stderr


def test_no_key_reaches_argv_environment_log_or_journal(tmp_path):
    """The worker's command line and environment, the log, the journal and run.json hold no key."""
    secret = os.urandom(32).hex().encode()
    (tmp_path / "key").write_bytes(secret)
    os.chmod(tmp_path / "key", 0o600)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "sys.stdout.buffer.write(open('/proc/self/cmdline', 'rb').read())\n"
        "sys.stdout.buffer.write(open('/proc/self/environ', 'rb').read())\n"
    )
    command = [
        sys.executable,
        "-m",
        "supervisor.command.cli",
        "--run-dir",
        "run",
        "--key-file",
        "key",
        str(script),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"RESILIENT" in done.stdout
    assert secret not in done.stdout + done.stderr + written
