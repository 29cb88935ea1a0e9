"""The drill, and the run that it leaves: every tool works on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import drill
from resilient.host.world import World
from resilient.run.rundir import RunDirectory

SCRIPT = Path(__file__).parent / "programs" / "best.py"

pytestmark = pytest.mark.mindspore


def call(*words, status=0, **more):
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, **more)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_tool_works_on_the_run_of_a_drill(tmp_path):
    """What `make demo` does, on a smaller script: the run stays, can be looked at as printed, and each
    command does its work on it; what an earlier drill has left is replaced."""
    words = ["--run-dir", "runs/demo", "--save-steps", "4", "--faults", "10:SIGKILL,20:exception"]
    earlier = tmp_path / "runs" / "demo"
    earlier.mkdir(parents=True)
    for name in ("drill", "of an earlier one"):
        (earlier / name).write_text("")
    said = call("chaos.drill", "drill", *words, SCRIPT, "fit", cwd=tmp_path)
    assert "identical: nothing was lost" in said
    assert "resilient ls runs/demo\n" in said
    assert not (earlier / "of an earlier one").exists()

    def tool(*words, status=0):
        return call("resilient.tools", *words, status=status, cwd=tmp_path)

    rows = [json.loads(line) for line in tool("ls", "runs/demo", "--json").splitlines()]
    assert rows[0]["step"] == 40
    assert {row["state"] for row in rows} == {"ok"}
    step = rows[-1]["step"]
    assert "all ok" in tool("verify", "runs/demo")
    assert "all ok" in tool("verify", "--quick", "runs/demo")
    tool("export", "runs/demo", "--step", step, "--out", "demo.ckpt")
    tool("export", "runs/demo", "--out", "demo.safetensors")
    assert "pinned" in tool("pin", "runs/demo", step)
    tool("key", "make", "demo.key")
    tool("rekey", "runs/demo", "--key-file", "demo.key")
    assert "(pinned)" in tool("ls", "runs/demo", "--key-file", "demo.key")
    assert "no longer pinned" in tool("unpin", "runs/demo", step, "--key-file", "demo.key")
    words = ["--run-dir", "runs/demo", "--key-file", "demo.key", SCRIPT, "fit"]
    assert "is complete" in call("supervisor.command.cli", *words, cwd=tmp_path)


@pytest.mark.parametrize("kind", ["a run", "a file", "a link", "a folder"])
def test_nothing_but_an_earlier_drill_is_replaced(tmp_path, monkeypatch, capsys, kind):
    """A directory with anything else in it is refused before anything runs, and stays as it is."""
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text("")
    Path("elsewhere").mkdir()
    if kind == "a run":
        RunDirectory(tmp_path / "demo", World()).open()
    elif kind == "a file":
        Path("demo").write_text("mine")
    elif kind == "a link":
        os.symlink("elsewhere", "demo")
    else:
        Path("demo").mkdir()
        Path("demo/mine").write_text("mine")
    assert drill.main(["drill", "--run-dir", "demo", "script.py"]) == 64
    assert "was not left by a drill" in capsys.readouterr().out
    assert os.path.lexists("demo")
    assert list(Path("elsewhere").iterdir()) == []


def test_an_earlier_drill_in_use_is_not_replaced(tmp_path, monkeypatch, capsys):
    """Somebody holds the run: it stays."""
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text("")
    Path("demo").mkdir()
    Path("demo/drill").write_text("")
    lock = RunDirectory(tmp_path / "demo", World()).lock()
    assert drill.main(["drill", "--run-dir", "demo", "script.py"]) == 64
    assert "in use by process" in capsys.readouterr().out
    assert Path("demo/drill").exists()
    lock.release()
