"""A run counts as complete only where its record fits what lies around it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_presence import GONE, forget, rank_folder
from test_trust import KEY, STARTED, home, record, run, save, start  # noqa: F401 - fixtures too

from resilient.config import Sealing
from resilient.errors import EXIT_UNUSABLE
from resilient.host.world import World
from resilient.run.holdings import PROVEN
from resilient.run.rundir import RunDirectory
from resilient.store.entry import Draft
from resilient.store.opening import open_store
from supervisor.command.cli import main

COMPLETE, GOES_ON, REFUSED = (0, True), (STARTED, False), (EXIT_UNUSABLE, False)


@pytest.fixture
def completed(run, start):  # noqa: F811
    """A complete run, by its sealed record, with checkpoints; a script that is run shows in its status."""
    script = run.with_name("train.py")
    script.write_text("raise SystemExit(0)")
    assert start()[0] == 0
    save(run, 1, 2)
    script.write_text("raise SystemExit(9)")
    return run


@pytest.fixture
def ask(start):  # noqa: F811
    """Starts what should be complete: the status, and whether it was called complete."""

    def ask(*options, root=None):
        status, said = start(*options, **({"root": root} if root else {}))
        return status, "is complete, there is nothing left to do" in said

    return ask


def test_the_complete_record_of_another_run(completed, start, ask, tmp_path):  # noqa: F811
    """It is of the same key and the same command, and lies over the record of a run that is not complete: 65,
    also with a checkpoint or the journal of the other run beside it."""
    other = tmp_path / "other"
    assert start(root=other)[0] == STARTED
    own = (other / "run.json").read_text()
    shutil.copy(completed / "run.json", other / "run.json")
    assert ask(root=other) == REFUSED  # the journal tells of another run
    (other / "journal.jsonl").unlink()
    assert ask(root=other) == REFUSED  # no journal tells of this one
    (other / "run.json").write_text(own)
    save(other, 1)
    assert start(root=other)[0] == STARTED
    shutil.copy(completed / "run.json", other / "run.json")
    shutil.copy(completed / "journal.jsonl", other / "journal.jsonl")
    for path in rank_folder(completed).iterdir():
        if path.is_file():
            shutil.copy(path, rank_folder(other))
    assert ask(root=other) == REFUSED  # strangers beside its own
    shutil.rmtree(other)
    shutil.copytree(completed, other)
    assert ask(root=other) == REFUSED  # the floor is another run's
    assert ask("--accept-rollback", root=other) == GOES_ON
    assert ask() == COMPLETE


def test_the_complete_record_of_another_command(run, monkeypatch, capfd):  # noqa: F811
    """A command has no checkpoints: the journal has to name the run that its record is of."""

    def command(root, *options):
        status = main(
            ["--run-dir", str(root), "--max-restarts", "0", *options, "--no-python", "sh", "job.sh"]
        )
        return status, "is complete, there" in capfd.readouterr().err

    other = run.with_name("other")
    monkeypatch.chdir(run.parent)
    Path("job.sh").write_text("exit 0")
    assert command(run)[0] == 0
    Path("job.sh").write_text("exit 9")
    assert command(other)[0] == STARTED
    assert command(run) == COMPLETE
    shutil.copy(run / "run.json", other / "run.json")
    assert command(other) == REFUSED
    (other / "journal.jsonl").unlink()
    assert command(other) == REFUSED
    assert command(other, "--accept-unsealed") == COMPLETE
    assert command(run.rename(run.with_name("moved"))) == COMPLETE


@pytest.mark.parametrize("lose", GONE, ids=lambda lose: lose.__name__)
def test_a_complete_run_whose_checkpoints_are_gone(completed, start, ask, home, lose):  # noqa: F811
    """The refusal names the missing checkpoints, also without a floor; accepted, the run starts anew."""
    assert start("--extend")[0] == STARTED  # the record knows that it has saved
    made = replace(record(completed), status="complete")
    RunDirectory(completed, World(), keys=[KEY]).write(made)
    assert ask() == COMPLETE
    lose(completed)
    assert ask() == REFUSED
    forget(home)
    assert ask() == REFUSED
    assert ask("--accept-rollback") == GOES_ON


def test_a_complete_record_that_is_older_than_its_run(completed, ask):
    """The authentic one of before --extend is put back after that was stopped: the run goes on."""
    before = (completed / "run.json").read_text()
    assert ask() == COMPLETE
    assert ask("--extend") == GOES_ON
    store = open_store(completed, World(), Sealing("AES-GCM", KEY), record(completed).run_id)
    store.commit(Draft("CKP", 1, 3, 3, [], b"", "schedule", info={"attempt": 2, PROVEN: True}))
    (completed / "run.json").write_text(before)
    assert ask() == GOES_ON
    assert record(completed).attempts == 3


def test_a_complete_run_stays_so_where_it_goes(completed, start, ask, tmp_path, home):  # noqa: F811
    """Started again, copied, moved, moved aside and put back, on another machine: it is complete."""
    assert ask() == COMPLETE
    copy = tmp_path / "copy"
    shutil.copytree(completed, copy, symlinks=True)
    assert ask(root=copy) == COMPLETE
    assert ask() == COMPLETE
    moved = completed.rename(tmp_path / "moved")
    assert ask(root=moved) == COMPLETE
    moved.rename(completed)
    assert start("--fresh", "--archive")[0] == STARTED
    save(completed, 1)
    assert start()[0] == STARTED
    archived = tmp_path / "run.archived-1"
    assert ask(root=archived) == COMPLETE
    shutil.rmtree(completed)
    shutil.copytree(copy, completed, symlinks=True)
    forget(home)
    assert ask() == COMPLETE
    (completed / "journal.jsonl").unlink()
    assert ask() == COMPLETE
