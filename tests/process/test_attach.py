"""A script under ``resilient-run`` sees and shows what it does under plain ``python``."""

from __future__ import annotations

import os
import py_compile
import signal
import socket
import subprocess
import sys
import textwrap
import zipfile

import pytest

from resilient.config import LINK_FD_VARIABLE, WorkerConfig
from resilient.errors import EXIT_USAGE
from resilient.wire.link import Link
from resilient.wire.messages import Configure

pytestmark = pytest.mark.process


def write(folder, **files):
    """Writes files by name; ``__`` in a name stands for a folder."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))


def plain(folder, *words, **more):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60, **more
    )


def attached(folder, *words, **more):
    """The same under a supervisor, with nothing of its own said on stderr."""
    ours = [
        "-m",
        "supervisor.command.cli",
        "--no-encrypt",
        "--max-restarts",
        "0",
        "--run-dir",
        str(folder / "run"),
    ]
    done = plain(folder, *ours, *words, **more)
    done.stderr = "".join(
        line for line in done.stderr.splitlines(keepends=True) if not line.startswith("resilient: ")
    )
    return done


def assert_alike(folder, *words, **more):
    """Output, errors and exit status are the same both ways; the plain run's result."""
    expected, found = plain(folder, *words, **more), attached(folder, *words, **more)
    assert (found.returncode, found.stdout, found.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )
    return expected


LOOK_AROUND = """
    import os, sys
    spec = __spec__.name if __spec__ else None
    print(__name__, __file__, __package__, spec, type(__loader__).__name__, __doc__)
    print(sys.argv, sys.path, sys.modules["__main__"].__dict__ is globals(), sorted(globals()))
    print("RESILIENT_LINK_FD" in os.environ, sys.stdin.read())
"""


@pytest.mark.parametrize("script", ["script.py", "./script.py", "inner/script.py", "link.py"])
def test_a_script_sees_what_it_always_sees(tmp_path, script):
    """argv, path, names of the module, environment and stdin; also in another folder and behind a link."""
    write(tmp_path, script=LOOK_AROUND, inner__script=LOOK_AROUND)
    (tmp_path / "link.py").symlink_to(tmp_path / "inner" / "script.py")
    seen = assert_alike(tmp_path, script, "--epochs", "3", "-m", input="words for the script")
    assert "'--epochs', '3', '-m'" in seen.stdout


@pytest.mark.parametrize("module", ["package", "package.inner"])
def test_a_module_sees_what_it_always_sees(tmp_path, module):
    """-m MODULE and -m PACKAGE, with relative imports."""
    text = "from . import sibling\n" + textwrap.dedent(LOOK_AROUND)
    write(tmp_path, package____init__="", package__sibling="", package__inner=text)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(text)
    assert_alike(tmp_path, "-m", module, "argument", input="")


@pytest.mark.parametrize("kind", ["app.zip", "app", "./app/", "script.pyc"])
@pytest.mark.parametrize("flags", [(), ("-P",)], ids=["", "-P"])
def test_an_application_sees_what_it_always_sees(tmp_path, kind, flags):
    """A zip archive, a folder with a __main__, compiled code: as plain python runs them."""
    if flags and sys.version_info < (3, 11):
        pytest.skip("this interpreter has no -P")
    code = textwrap.dedent(LOOK_AROUND) + "print(__cached__)\n"
    if kind != "script.pyc":
        code += "import beside\nprint(beside.__file__)\n"
    (tmp_path / "app").mkdir()
    files = {"app/__main__.py": code, "app/beside.py": "", "script.py": code}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        for name in ("__main__.py", "beside.py"):
            archive.write(tmp_path / "app" / name, name)
    py_compile.compile(str(tmp_path / "script.py"), str(tmp_path / "script.pyc"))
    expected = plain(tmp_path, *flags, kind, "--x", "1")
    words = [*flags, "-m", "supervisor.command.cli", "--no-encrypt", "--run-dir", str(tmp_path / "run")]
    found = plain(tmp_path, *words, kind, "--x", "1")
    assert expected.returncode == found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout


def test_an_application_is_started_again_as_it_was(tmp_path):
    """The second attempt runs the same archive."""
    code = "import os, sys\nprint(sys.argv)\nos.path.exists('x') or (open('x', 'w'), 1 / 0)\n"
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", code)
    words = ["-m", "supervisor.command.cli", "--no-encrypt", "--backoff", "0:0", "app.zip", "--x"]
    done = plain(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['app.zip', '--x']\n" * 2
    assert (tmp_path / "runs" / "app").is_dir()


@pytest.mark.parametrize(
    "ending",
    [
        "raise ValueError('no good')",
        "raise RuntimeError('later') from KeyError('earlier')",
        "def inner():\n        1 / 0\n    inner()",
        "try:\n        1 / 0\n    except ZeroDivisionError:\n        raise OSError('while handling')",
        "import sibling_that_fails",
        "sys.exit('a text')",
        "sys.exit(3)",
        "sys.exit()",
        "sys.exit(-1)",
        "raise SystemExit(True)",
        "os._exit(9)",
        "sys.excepthook = lambda *a: print('hook', a[0].__name__); 1 / 0",
        "import atexit; atexit.register(print, 'at the end'); sys.exit(4)",
        "import threading; threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
        "import warnings; warnings.warn('take care')",
    ],
)
def test_a_script_ends_as_it_always_ends(tmp_path, ending):
    """Traceback, text and exit status are plain python's."""
    write(tmp_path, script=f"    import os, sys, time\n    {ending}\n", sibling_that_fails="x = 1\nx.no\n")
    assert_alike(tmp_path, "script.py")


def test_a_syntax_error_is_shown_as_ever(tmp_path):
    """With the line and the caret, and nothing of ours around it."""
    write(tmp_path, script="def broken(:\n    pass\n")
    expected, found = plain(tmp_path, "script.py"), attached(tmp_path, "script.py")
    assert found.returncode == expected.returncode == 1
    assert found.stderr == expected.stderr


def test_an_interrupt_of_the_scripts_own_ends_by_its_signal(tmp_path):
    """KeyboardInterrupt that nobody catches: plain python dies of SIGINT, the run ends with 130."""
    write(tmp_path, script="raise KeyboardInterrupt\n")
    expected, found = plain(tmp_path, "script.py"), attached(tmp_path, "script.py")
    assert (expected.returncode, found.returncode) == (-signal.SIGINT, 128 + signal.SIGINT)
    assert found.stderr == expected.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_script_may_start_processes(tmp_path, method):
    """Classes of ``__main__`` are pickled and found again; its children are no workers of ours."""
    write(
        tmp_path,
        script=f"""
            import multiprocessing, os, pickle
            class Thing:
                def __init__(self, n): self.n = n
                def __eq__(self, other): return self.n == other.n
            def double(thing):
                return Thing(2 * thing.n), "RESILIENT_LINK_FD" in os.environ
            if __name__ == "__main__":
                assert pickle.loads(pickle.dumps(Thing(1))) == Thing(1)
                with multiprocessing.get_context("{method}").Pool(2) as pool:
                    for thing, linked in pool.map(double, map(Thing, range(3))):
                        print(thing.n, linked)
        """,
    )
    assert assert_alike(tmp_path, "script.py").stdout == "0 False\n2 False\n4 False\n"


def test_no_child_of_the_script_holds_the_link(tmp_path):
    """Not even one that is started with every descriptor open: the link ends when the worker does."""
    write(
        tmp_path,
        script="""
            import subprocess, sys
            look = "import glob, os; print([os.readlink(n) for n in glob.glob('/proc/self/fd/*') "
            look += "if 'socket' in os.readlink(n)])"
            run = [sys.executable, "-c", look]
            print(subprocess.run(run, close_fds=False, capture_output=True, stdin=subprocess.DEVNULL))
        """,
    )
    assert_alike(tmp_path, "script.py")


def test_what_is_missing_is_said_before_anything_runs(tmp_path):
    """A module that is not there: one line, and no traceback of ours."""
    done = plain(
        tmp_path, "-m", "supervisor.command.cli", "--no-encrypt", "--max-restarts", "0", "-m", "no.such"
    )
    assert done.returncode == 64
    assert "no.such" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_whose_supervisor_died_before_it_began_runs_nothing(tmp_path):
    """No parent-death signal comes any more then; the script must not train on without a supervisor."""
    write(tmp_path, script="print('running')")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    link.send(Configure(WorkerConfig(run_id="r", directory=tmp_path, seed=1)))
    link.close()
    with theirs:
        environment = {**os.environ, LINK_FD_VARIABLE: str(theirs.fileno())}
        done = plain(
            tmp_path,
            "-m",
            "resilient.worker.attach",
            "script.py",
            env=environment,
            pass_fds=[theirs.fileno()],
        )
    assert done.returncode == EXIT_USAGE
    assert done.stdout == ""
    assert "the other side of the link is gone" in done.stderr


OTHER_VERSIONS = {
    "protocol": "worker_processes.Configure = partial(Configure, protocol=PROTOCOL + 1)",
    "field": "known = shape(WorkerConfig); known._write = [one for one in known._write if one[0] != 'seed']",
}


@pytest.mark.parametrize("difference", OTHER_VERSIONS)
def test_a_worker_of_another_version_says_so(supervise, difference):
    """The supervisor's configuration is not what the code on disk needs by now: one line says what to do,
    after one attempt, and no traceback comes."""
    older = f"""
import sys
from functools import partial
from resilient.config import WorkerConfig
from resilient.wire.encoding import shape
from resilient.wire.messages import PROTOCOL, Configure
from supervisor.command import cli
from supervisor.group import worker_processes
{OTHER_VERSIONS[difference]}
sys.exit(cli.main())
"""
    run = supervise("print('running')", program=("-c", older))
    assert run.end() == EXIT_USAGE
    assert "another version of resilient was installed" in run.err()
    assert "run the same command again: it resumes" in run.err()
    assert (run.err().count("started (process"), "Traceback" in run.err(), run.out()) == (1, False, "")
