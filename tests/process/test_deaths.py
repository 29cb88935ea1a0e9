"""Every way to die, by real processes that really die that way: named rightly, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from supervised import TRAINING, events, is_alive, wait_until

from chaos.memory_group import memory_group

pytestmark = pytest.mark.process

STEPS = TRAINING + "    step(10 * attempt)\n"
ONCE = STEPS + "    if attempt == 2: sys.exit(0)\n"


def judged(run):
    """The first judgment: of the attempt that the test is about."""
    return events(run, "incident_judged")[0]


def log(run, attempt=1):
    return (run.folder / "run" / "logs" / f"attempt_{attempt:04d}" / "rank_0.log").read_text()


def processes_of(run):
    """What is alive of a run: whoever names its script, or stands in the environment of one that does."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and is_alive(int(entry.name)):
            try:
                if str(run.script).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
def ends(supervise):
    """Runs a script to its end; its status is held, and that no process of the run is alive."""

    def run_it(script, *options, status=0, **more):
        run = supervise(script, *options, **more)
        assert run.end() == status, run.err()
        assert processes_of(run) == []
        return run

    return run_it


@pytest.mark.parametrize(
    ("ending", "kind", "cause"),
    [
        ("sys.exit(3)", "exited", "exited with status 3"),
        ("raise ValueError('no such thing')", "exception", "ValueError: no such thing"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "killed", "killed by SIGTERM"),
        ("ctypes.string_at(0)", "fault", "it crashed: SIGSEGV"),
        ("os.abort()", "fault", "it crashed: SIGABRT"),
        ("os._exit(0)", "left early", "the worker left with status 0 before the training was complete"),
    ],
)
def test_each_death_has_its_name(ends, ending, kind, cause):
    """What it was stands in the journal and on the console, and the run goes on."""
    run = ends(f"{ONCE}    {ending}\n")
    assert (judged(run)["kind"], judged(run)["cause"], judged(run)["step"]) == (kind, cause, 10)
    assert f"the worker ended after step 10: {cause}" in run.err()


def test_a_fault_leaves_its_stacks(ends):
    """Where it crashed stands in the log; the kernel's own words, where they can be read, are evidence."""
    run = ends(f"{ONCE}    ctypes.string_at(0)\n")
    assert "Fatal Python error: Segmentation fault" in log(run)
    assert "string_at" in log(run)
    assert "SIGSEGV" in judged(run)["evidence"][0]


def test_a_crash_at_import_is_told_by_its_exception_and_not_tried_for_ever(ends):
    """Twice the same before any step: the last lines are the cause and what to do."""
    run = ends("import no_such_module", status=1)
    assert judged(run)["cause"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert len(events(run, "attempt")) == 2
    last = run.err().splitlines()[-1]
    assert "same way twice" in last
    assert "resilient explain" in last


def test_a_silent_worker_is_ended_with_its_stacks_in_the_log(ends):
    """No beat for longer than the limit; SIGTERM is ignored, so after the grace it is killed."""
    script = ONCE + "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(1000)\n"
    run = ends(script, "--hang-timeout", "1", "--grace", "1")
    assert judged(run)["kind"] == "hang"
    assert "in a step: nothing moved" in judged(run)["cause"]
    assert events(run, "hang")[0]["limit_s"] == 1
    assert "most recent call first" in log(run)
    assert "script.py" in log(run)


def test_a_c_loop_that_holds_the_interpreter_lock_is_ended(ends):
    """It answers to nothing; the stacks come all the same, and it is killed."""
    run = ends(ONCE + "    pow(7, 10**9)\n", "--hang-timeout", "1", "--grace", "1")
    assert judged(run)["kind"] == "hang"
    assert "most recent call first" in log(run)


def test_a_stopped_worker_is_woken_and_goes_on(ends):
    """Somebody's SIGSTOP: SIGCONT, and if it moves by itself again, no attempt is lost.

    What it dies of later is no hang.
    """
    script = (
        STEPS
        + """
    os.kill(os.getpid(), signal.SIGSTOP)
    for number in range(11, 41):
        step(number)
        time.sleep(0.1)
    if attempt == 1: os._exit(7)
    """
    )
    run = ends(script, "--hang-timeout", "1.5")
    assert [event["attempt"] for event in events(run, "hang")] == [1, 2]
    assert len(events(run, "moves")) == 2
    assert [event["kind"] for event in events(run, "incident_judged")] == ["exited", "finished"]


def test_a_debugger_may_take_its_time(ends):
    """--hang-timeout 0: silence, however long, is no hang."""
    run = ends(STEPS + "    time.sleep(3)\n", "--hang-timeout", "0")
    assert events(run, "hang") == []


def test_a_worker_above_its_memory_limit_is_replaced(ends):
    """Asked to save and end, before the kernel does it."""
    script = (
        ONCE
        + """
    hoard = bytearray(300_000_000)
    hoard[::4096] = b"x" * len(hoard[::4096])
    time.sleep(1000)
    """
    )
    run = ends(script, "--memory-limit", "200M", "--grace", "5")
    assert judged(run)["kind"] == "memory limit"
    assert events(run, "memory")[0]["bytes"] > 200 * 1024**2


IN_A_GROUP = """
import os, sys
with open(sys.argv.pop(1), "w") as group:
    group.write(str(os.getpid()))
from supervisor.command import cli
sys.exit(cli.main())
"""


def test_a_kill_for_memory_is_told_from_other_kills(supervise):
    """The kernel's own count, of the group that supervisor and worker are in, says what SIGKILL does not."""
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(memory_group(256 * 1024**2))
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        hoard = "    hoard = []\n    while True: hoard.append(b'x' * 1000000)\n"
        run = supervise(ONCE + hoard, program=("-c", IN_A_GROUP, str(group / "cgroup.procs")))
        assert run.end() == 0, run.err()
    assert judged(run)["kind"] == "out of memory"
    assert "the kernel killed it because memory ran out" in run.err()
    assert any("count of such kills rose by 1" in why for why in judged(run)["evidence"])


def test_a_stop_of_ours_is_no_kill_from_outside(supervise):
    """The signal came from us: the cause is the request."""
    run = supervise(STEPS + "    print('up', flush=True)\n    time.sleep(1000)\n")
    run.wait_for("up")
    run.send(signal.SIGTERM)
    assert run.end() == 75, run.err()
    assert (judged(run)["kind"], judged(run)["restart_in_s"]) == ("stopped", None)
    assert processes_of(run) == []


def test_a_worker_that_cannot_be_started_is_told(tmp_path, supervise):
    """The interpreter has gone while the run was on: a reason, and a budget."""
    home = Path(sys.prefix)
    (tmp_path / "env" / "bin").mkdir(parents=True)
    python = tmp_path / "env" / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    (tmp_path / "env" / "lib").symlink_to(home / "lib")
    (tmp_path / "env" / "pyvenv.cfg").write_bytes((home / "pyvenv.cfg").read_bytes())
    script = STEPS + f"    os.unlink({str(python)!r})\n    os._exit(7)\n"
    run = supervise(script, "--max-restarts", "2", python=python)
    assert run.end() == 126, run.err()
    assert "spawn failed" in [event["kind"] for event in events(run, "incident_judged")]
    assert "the worker could not be started" in run.err()


def test_a_lost_supervisor_is_told_by_the_next(supervise):
    """The next one has its lock and finds the run unfinished; the worker of the lost one is gone."""
    run = supervise(STEPS + "    print('up', flush=True)\n    time.sleep(1000)\n")
    run.wait_for("up")
    run.send(signal.SIGKILL)
    run.end()
    wait_until(lambda: processes_of(run) == [], "the worker's end")
    again = supervise(STEPS)
    assert again.end() == 0
    assert "the supervisor of this run was killed" in again.err()
    assert events(again, "supervisor_lost")[0]["attempt"] == 1


def test_a_state_that_takes_everything_down_is_set_aside(supervise):
    """Twice the supervisor itself dies while going on from one state: the third goes on from an older one."""
    script = (
        TRAINING
        + """
    from resilient.wire.messages import ResumeRecorded, Resuming
    me.tell(Resuming(24, "CKP-3_4.ckpt"))
    assert me.link.wait(ResumeRecorded, 10), "it was not written down"
    print(me.config.origin.allows(24, {"attempt": 1}), flush=True)
    if attempt < 3: time.sleep(1000)
    """
    )
    for _ in range(2):
        run = supervise(script)
        run.wait_for("True")
        run.send(signal.SIGKILL)
        run.end()
        wait_until(lambda run=run: processes_of(run) == [], "the worker's end")
    run = supervise(script)
    assert run.end() == 0
    assert "False" in run.out()
    assert "two attempts have ended on the state of step 24" in run.err()


def test_a_stale_lock_whose_pid_lives_is_no_lock(ends, tmp_path):
    """The file says who had it; only the kernel says who has it."""
    (tmp_path / "run").mkdir(mode=0o700)
    owner = {"pid": os.getpid(), "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    (tmp_path / "run" / "lock").write_text(json.dumps(owner))
    ends(STEPS)


def test_a_request_is_passed_on_and_changes_nothing(supervise):
    """SIGQUIT: the stacks are in the log, and the training goes on."""
    run = supervise(STEPS + "    print('up', flush=True)\n    sys.stdin.readline()\n", stdin=subprocess.PIPE)
    run.wait_for("up")
    run.send(signal.SIGQUIT)
    run.wait_for("most recent call first", "err")
    run.process.stdin.close()
    assert run.end() == 0
    assert [event["what"] for event in events(run, "request")] == ["stacks"]


def test_no_restart_without_a_run_directory(ends, tmp_path):
    """It has been exchanged under the supervisor: the reason, and no attempt burnt on it."""
    script = (
        ONCE
        + """
    os.rename(sys.argv[1], sys.argv[1] + ".old")
    os.mkdir(sys.argv[1])
    open(sys.argv[1] + "/lock", "w")
    os._exit(7)
    """
    )
    run = ends(script, status=7, arguments=[str(tmp_path / "run")])
    assert "another one than this supervisor has locked" in run.err()


JUMPY = """
import itertools, sys
from resilient.host.clock import SystemClock
from resilient.host.world import World
from supervisor.command import cli, start

class Jumpy(SystemClock):
    jumps = itertools.cycle([0.0, 3e8, -3e8, 1e9])
    def now(self):
        return super().now() + next(self.jumps)

start.World = lambda: World(clock=Jumpy())
sys.exit(cli.main())
"""


def test_a_clock_that_jumps_changes_nothing(supervise):
    """Years forward and back between any two looks at it: the same restarts, the same end, no hang seen."""
    script = STEPS + "    if attempt < 3: os._exit(7)\n    time.sleep(2)\n"
    run = supervise(script, "--hang-timeout", "20", "--restart-window", "60", program=("-c", JUMPY))
    assert run.end() == 0, run.err()
    assert [event["kind"] for event in events(run, "incident_judged")] == ["exited", "exited", "finished"]
    times = [event["time"] for event in events(run, "transition")]
    assert times != sorted(times)
    assert "run complete: 3 attempts" in run.err()


EXECS = """
    import os, sys
    if os.environ.get("again") is None:
        os.environ["again"] = "1"
        {fork}
        os.{call}
    print("second life", flush=True)
    sys.exit({status})
"""


@pytest.mark.parametrize(
    "call", ["execv(sys.executable, [sys.executable, *sys.argv])", "execlp('python3', 'python3', *sys.argv)"]
)
def test_a_script_that_replaces_its_own_process_is_told_that_nothing_is_saved(ends, call):
    """When it does so, and what comes then is judged by its status, as any command is."""
    run = ends(EXECS.format(call=call, status=0, fork=""))
    assert run.err().count("NOTHING IS SAVED from here on: the script replaces its own process by") == 1
    assert run.out().count("second life") == 1
    assert "has closed a descriptor" not in run.err()
    [failed] = events(
        ends(
            EXECS.format(call=call, status=3, fork=""),
            "--fresh",
            "--archive",
            "--max-restarts",
            "0",
            status=3,
        ),
        "incident_judged",
    )
    assert "replaced its own process by" in " ".join(failed["evidence"])


def test_a_child_of_the_script_becomes_another_program_without_a_word(ends):
    """Only the script's own process is meant, and a program that cannot be started replaces nothing."""
    run = ends(
        EXECS.format(
            call="execv('/no/such/program', ['x'])", status=0, fork="if os.fork(): os.wait(); sys.exit(0)"
        ).replace("os.execv", "os.execv(sys.executable, [sys.executable, '-c', '0']); os.execv")
    )
    assert "NOTHING IS SAVED" not in run.err()
    script = """
    import os
    try:
        os.execv("/no/such/program", ["x"])
    except FileNotFoundError:
        os._exit(0)
    """
    run = ends(script, "--fresh", "--archive", "--max-restarts", "0", status=1)
    assert judged(run)["kind"] == "left early"


def test_a_daemon_that_is_left_behind_is_named(ends):
    """It is ended with the attempt: a training does not go on as a daemon, and the line says so."""
    script = """
    import os, sys
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, b"!")
            while True:
                signal.pause()
        os._exit(0)
    os.read(reading, 1)
    """
    run = ends(script.replace("import os, sys", "import os, signal"))
    assert "what the script has left at work behind it is ended (process" in run.err()
    assert "must not go on as a daemon" in run.err()
