"""What a command line runs: each script has a run of its own, however it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.command.naming import directory_of, is_same, is_same_script
from supervisor.group.program import Program


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with a script that has no suffix, and data."""
    monkeypatch.chdir(tmp_path)
    Path("job").write_text("echo")
    Path("data.bin").write_text("1")
    Path("tool").write_text("#!/bin/sh")


def command(*words):
    return Program("command", words)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (Program("script", ("train.py", "other.py")), "train"),
        (Program("script", ("some/where/train.py",)), "train"),
        (Program("module", ("package.train", "x.py")), "package.train"),
        (command("python", "a.py", "b.py"), "python-a"),
        (command("python", "-u", "some/where/b.py"), "python-b"),
        (command("/usr/bin/python3", "a.py"), "python3-a"),
        (command("python", "-m", "package.train", "a.py"), "python-package.train"),
        (command("torchrun", "--nproc", "4", "train.py"), "torchrun-train"),
        (command("mpirun", "--hostfile", "data.bin", "python", "train.py"), "mpirun-train"),
        (command("bash", "job"), "bash-job"),
        (command("bash", "-c", "sleep 1; ./a.py"), "bash"),
        (command("./tool", "data.bin"), "tool"),
        (command("./job.sh", "-v"), "job"),
        (command("true"), "true"),
    ],
)
def test_a_run_has_the_name_of_its_script(program, name):
    """Not that of the interpreter alone: two scripts would share a run."""
    assert directory_of(program) == Path("runs") / name


def test_the_same_script_is_the_same_however_it_is_called():
    """By another path to the same file, with other arguments."""
    program = Program("script", ("train.py", "--epochs", "3"))
    here = str(Path.cwd() / "train.py")
    for words in ((), ("train.py",), ("./train.py", "-x"), (here, "--epochs", "5")):
        assert is_same_script(program, words)
    for words in (("other.py",), ("some/train.py", "--epochs", "3")):
        assert not is_same_script(program, words)
        assert not is_same(program, words)


def test_of_a_command_the_script_counts():
    """An interpreter is no script."""
    assert is_same_script(command("python", "a.py"), ("python", "./a.py", "x"))
    assert not is_same_script(command("python", "a.py"), ("python", "b.py"))
    assert not is_same_script(command("bash", "-c", "one"), ("bash", "-c", "two"))


def test_other_arguments_are_another_command():
    """What was complete with three epochs is not complete with five."""
    program = Program("script", ("train.py", "--epochs", "3"))
    assert is_same(program, ())
    assert is_same(program, ("./train.py", "--epochs", "3"))
    assert not is_same(program, ("train.py", "--epochs", "5"))
    assert not is_same(program, ("train.py",))
    assert not is_same(program, ("train.py", "--epochs", "3", "-v"))
