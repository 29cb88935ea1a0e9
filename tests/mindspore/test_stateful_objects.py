"""State outside of networks is that of the boundary that a run resumes from: in loops, and in callbacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "holders.py"

pytestmark = pytest.mark.mindspore


def result_of(command, folder):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return next(line for line in done.stdout.splitlines() if line.startswith("result ")), said


@pytest.mark.parametrize("kind", ["loop", "model"])
def test_what_objects_hold_is_as_if_nothing_had_failed(tmp_path, kind):
    """After a SIGKILL and an exception in the middle of steps: the same weights as plain python makes, and
    the same in every object, those that were not given to training among them. Nothing is named that is
    carried. Stock reads the checkpoint, with two optimizers' parameters by names of their own.
    """
    (tmp_path / "plain").mkdir()
    plain = [sys.executable, str(PROGRAM), kind, "never", str(tmp_path / "plain")]
    wanted, _ = result_of(plain, tmp_path / "plain")
    ours = ["--run-dir", str(tmp_path / "run"), "--no-encrypt", "--backoff", "0:0", "--mirror-every", "1"]
    command = [
        sys.executable,
        "-m",
        "supervisor.command.cli",
        *ours,
        str(PROGRAM),
        kind,
        "yes",
        str(tmp_path),
    ]
    found, said = result_of(command, tmp_path)
    assert found == wanted, said
    assert {"died_5", "died_13"} <= {path.name for path in tmp_path.iterdir()}
    assert "warning" not in said.lower().replace("[warning]", ""), said
    if kind == "loop":
        assert ", scaler (DynamicLossScaler)" in said
        newest = max(
            (tmp_path / "run" / "checkpoint" / "rank_0").glob("*.ckpt"), key=lambda p: p.stat().st_mtime
        )
        check = f"import mindspore as ms; print('names', *ms.load_checkpoint({str(newest)!r}))"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120)
        names = next(line for line in done.stdout.splitlines() if line.startswith("names ")).split()
        assert {"beta1_power", "adam_2.beta1_power", "global_step", "adam_2.global_step"} <= set(names)
