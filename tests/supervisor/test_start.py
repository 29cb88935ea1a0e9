"""Before anything is supervised: what is in the way, and whether the key fits."""

from __future__ import annotations

import pytest
from rank_holder import rank_held

from resilient.errors import EXIT_USAGE
from resilient.host.world import World
from resilient.store import layout
from resilient.store.rundir import RunDirectory
from supervisor.cli import main


@pytest.fixture
def script(tmp_path):
    """A script that nobody gets to run."""
    path = tmp_path / "train.py"
    path.write_text("raise SystemExit(9)")
    return str(path)


@pytest.mark.parametrize(("place", "damaged"), [("run", False), ("run", True), ("out", False)])
def test_a_run_that_is_saved_into_is_not_moved_aside(tmp_path, script, capfd, place, damaged):
    """--fresh --archive while a worker of the run lives on: it is named; the record may be damaged."""
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    RunDirectory(tmp_path / "run", World()).open({"checkpoints": (str(tmp_path / "out"),)})
    if damaged:
        (tmp_path / "run" / "run.json").write_text("{")
    words = ["--run-dir", str(tmp_path / "run"), "--fresh", "--archive", "--no-encrypt", script]
    with rank_held(layout.rank_lock(tmp_path / place, 0)) as pid:
        assert main(words) == EXIT_USAGE
        assert f"process {pid}, a worker or a saver, still holds" in capfd.readouterr().err
        assert not (tmp_path / "run.archived-1").exists()
