"""Processes of ours import nothing of the user's; the script imports what it does under plain python."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from test_attach import assert_alike, plain, write

from resilient import isolated
from resilient.config import Sealing, WorkerConfig
from resilient.saving import saver_process
from resilient.wire.link import Link
from resilient.wire.messages import Configure, TakeOver
from supervisor.group.program import Program
from supervisor.group.worker_processes import ProcessWorkers

pytestmark = pytest.mark.process

REQUIREMENTS = ("Crypto", "_cffi_backend", "cryptography", "numpy", "psutil", "structlog", "tenacity", "rich")
OURS = ("resilient", "supervisor", "chaos")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a module under each name of the library's and of our requirements."""
    for name in (*sys.stdlib_module_names, *REQUIREMENTS, *OURS):
        decoy(tmp_path, name)
    (tmp_path / "src").mkdir()
    write(tmp_path, src__script="import secrets, json\nprint(secrets.__file__, json.dumps(1))")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def decoy(folder, name):
    """A module that says that it has been imported, and is of no use."""
    note = f"open({str(folder / 'imported')!r}, 'a').write({name + ' '!r})"
    (folder / f"{name}.py").write_text(f"{note}\nraise ImportError('a file of the user')\n")


def imported(folder):
    found = folder / "imported"
    return found.read_text() if found.exists() else ""


def supervised(*words, **more):
    console = "import sys; from resilient.isolated import resilient_run as run; sys.exit(run())"
    command = [sys.executable, "-c", f"import sys; sys.path.pop(0); {console}", "--run-dir", "run", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


def tell_and_end(command, config):
    """A saver that gets its configuration and then the end of its link; its exit status."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, subprocess.Popen([*command, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        link = Link(ours)
        link.send(Configure(config))
        link.send(TakeOver())
        answer, _ = link.receive()
        link.close()
    return answer.error, process.returncode


def test_what_lies_in_the_working_directory_is_not_imported(folder):
    """Not by the supervisor, worker, command, saver (the supervisor's and the training's) and tools."""
    assert supervised("--no-encrypt", "src/script.py").returncode == 0
    assert supervised("--no-encrypt", "--run-dir", "other", "--no-python", "true").returncode == 0
    config = WorkerConfig(run_id="r", directory=folder / "run", seed=1, sealing=Sealing())
    assert tell_and_end(saver_process.COMMAND, config) == ("", 0)
    workers = ProcessWorkers(Program("command", ("true",)), print, lambda: None)
    saver = workers.spawn_saver(config, folder / "saver.log")
    saver.link.send(TakeOver())
    assert saver.link.receive()[0].error == ""
    saver.link.close()
    assert saver._process.wait(60) == 0
    assert subprocess.run([*isolated.command("resilient.tools"), "ls", "run"]).returncode == 0
    assert subprocess.run([*isolated.command("chaos.drill"), "drill", "--help"]).returncode == 0
    assert imported(folder) == ""


def test_what_pythonpath_leads_to_is_the_scripts_alone(tmp_path, monkeypatch):
    """`PYTHONPATH=.` is for the script: it gets its own modules, and no process of ours does."""
    for name in ("secrets", "socket", "json", "psutil", "rich", "numpy"):
        decoy(tmp_path, name)
    (tmp_path / "secrets.py").write_text("own = True\n")
    write(tmp_path, script="import secrets; print(secrets.own)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f".:{os.environ.get('PYTHONPATH', '')}".rstrip(":"))
    done = supervised("script.py", "--no-encrypt")
    config = WorkerConfig(run_id="r", directory=tmp_path / "run", seed=1, sealing=Sealing())
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert tell_and_end(saver_process.COMMAND, config) == ("", 0)
    assert imported(tmp_path) == ""


# Options of the interpreter that come from the environment are passed on as such.
LOOK = (
    "import sys\nprint(sys.path, sys.flags, [w for w in sys.orig_argv[1:] if w not in ('-B', '-P', '-s')])\n"
)


@pytest.mark.parametrize("words", [("script.py", "-x"), ("-m", "package.inner", "-x")])
@pytest.mark.parametrize(
    "variables", [{}, {"PYTHONPATH": ":other:."}, {"PYTHONSAFEPATH": "1"}, {"PYTHONNOUSERSITE": "1"}]
)
def test_path_and_flags_are_plain_pythons(tmp_path, words, variables):
    """Whatever the environment says of the path, for scripts and modules; the command line as well."""
    write(tmp_path, script=LOOK, package____init__="", package__inner=LOOK)
    (tmp_path / "package" / "__init__.py").write_text("")
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables}
    expected = plain(tmp_path, *words, env=variables)
    command = [*isolated.command("supervisor.command.cli"), "--run-dir", "run", "--no-encrypt", *words]
    found = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert found.stdout == expected.stdout, found.stderr
    # A module that -P hides: plain python ends with 1 there, and a run with 64.
    assert (found.returncode == 0) == (expected.returncode == 0)


def test_a_script_gets_its_own_module_where_we_have_the_librarys(tmp_path):
    """Names of the standard library beside the script hide it, as ever; what is ours goes on with its own."""
    write(
        tmp_path,
        queue="own = 'queue'",
        json__nothing="",
        psutil="own = 'psutil'",
        tenacity="own = 'tenacity'",
        script="""
            import json, queue, psutil, tenacity
            print(queue.own, psutil.own, tenacity.own, json.dumps([]))
        """,
    )
    assert_alike(tmp_path, "script.py")


def test_modules_of_ours_that_come_later_import_what_we_do(tmp_path):
    """A part of ours that a script's first use brings in finds the library's modules, not the script's."""
    write(
        tmp_path,
        base64="own = 'base64'",
        script="""
            import base64, sys
            sys.modules.pop("resilient.wire.encoding")
            import resilient.wire.encoding as later
            print(base64.own, hasattr(later.base64, "b64encode"), sys.modules["base64"] is base64)
        """,
    )
    done = subprocess.run(
        [*isolated.command("supervisor.command.cli"), "--run-dir", "run", "--no-encrypt", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "base64 True True\n", done.stderr
