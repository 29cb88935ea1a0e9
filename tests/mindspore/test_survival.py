"""However a worker dies in the middle of an epoch, the run ends with the weights of one that never failed."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

PROGRAM = Path(__file__).parent / "programs" / "train.py"
SEED = 20_26
ALL_STEPS = list(range(1, 19))
FATAL_STEP = 10

pytestmark = pytest.mark.mindspore

# These leave the callback that they come in. Those behind it have not run, so the step runs again, with all.
LEAVING = ("exception", "exit3")
# These wait until the step is complete: it is saved, and none runs again.
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
SUDDEN = ("os_exit7", "os_exit0", "SIGKILL", "segv", "abort")


def run(folder: Path, api: str, mode: str, death: str) -> tuple[str, list[int], str]:
    """The hash at the end, the steps that were completed in order, and what was said."""
    directory = RunDirectory(folder / "run", World())
    directory.open({"seed": SEED})
    command = [
        sys.executable,
        "-m",
        "supervisor.command.cli",
        "--run-dir",
        str(folder / "run"),
        "--no-encrypt",
    ]
    # Each step is kept: by default only as many as cost little, and these take a millisecond.
    options = ["--save-steps", "4", "--backoff", "0:0", "--mirror-every", "1"]
    words = [str(PROGRAM), api, mode, death, str(folder)]
    done = subprocess.run(
        [*command, *options, *words], capture_output=True, text=True, timeout=240, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    steps = [int(line) for line in (folder / "steps").read_text().split()]
    return result[-1], steps, done.stdout + done.stderr


@cache
def uninterrupted(api: str, mode: str) -> str:
    """The hash of a run that never fails."""
    result, steps, _ = run(Path(mkdtemp()), api, mode, "never")
    assert steps == ALL_STEPS
    return result


def check(tmp_path: Path, api: str, mode: str, death: str) -> None:
    result, steps, said = run(tmp_path, api, mode, death)
    assert result == uninterrupted(api, mode), said
    assert (tmp_path / "died").exists()
    assert "resumed at step" in said
    assert sorted(set(steps)) == ALL_STEPS
    leaves = death in LEAVING and api != "custom"
    if death not in SUDDEN:
        again = [FATAL_STEP] if leaves else []
        assert steps == sorted([*ALL_STEPS, *again]), f"other steps ran again than {again}: {steps}"
        assert f"resumed at step {FATAL_STEP - len(again)} " in said, said


@pytest.mark.parametrize("mode", ["graph", "pynative"])
@pytest.mark.parametrize("death", [*LEAVING, *SIGNALS, *SUDDEN])
def test_train_survives(tmp_path, death, mode):
    """``Model.train``: every way to die, in both execution modes."""
    check(tmp_path, "train", mode, death)


@pytest.mark.parametrize("api", ["fit", "calls", "custom", "generator"])
@pytest.mark.parametrize("death", ["exception", "SIGKILL"])
def test_every_way_to_train_survives(tmp_path, api, death):
    """``fit``, a loop of ``train`` calls, a loop of one's own, and a generator that draws from NumPy."""
    check(tmp_path, api, "graph", death)
