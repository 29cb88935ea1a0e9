"""A project that is moved or copied, with a directory of checkpoints beside its run, resumes from it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from test_presence import forget
from test_trust import KEY, STARTED, edit, home, record, remove, run, save, start  # noqa: F401 - fixtures too

from resilient.errors import EXIT_UNUSABLE
from resilient.host.files import DiskFiles
from resilient.host.world import World
from resilient.run.places import find_places
from resilient.run.rundir import RunDirectory


@pytest.fixture
def project(tmp_path, start):  # noqa: F811
    """A folder with a run and, beside its directory, the place where all its checkpoints are; the floor
    knows them."""
    root = tmp_path / "p1" / "run"
    assert start(root=root)[0] == STARTED
    save(root, 1, 2, 3, place=root.with_name("out"))
    RunDirectory(root, World(), keys=[KEY]).write(
        replace(record(root), checkpoints=(str(root.parent / "out"),))
    )
    assert start(root=root)[0] == STARTED
    return root.parent


def saved(project):
    """The steps in a project's place."""
    return [entry.step for entry in save(project / "run", place=project / "out").entries()]


def named(project):
    return record(project / "run").checkpoints


@pytest.mark.parametrize("floor", [True, False], ids=["floor", "no floor"])
@pytest.mark.parametrize("original", ["stays", "goes", "is replaced"])
def test_a_project_that_was_moved_or_copied(project, start, home, tmp_path, original, floor):  # noqa: F811
    """The place that lies to the run as it lay before is the run's own; of a copy it is the copy's. Nobody
    asks anything, whether the original is still there, has gone, or another run has its name by now."""
    other = tmp_path / "p2"
    shutil.copytree(project, other)
    if original != "stays":
        shutil.rmtree(project)
    if original == "is replaced":
        assert start(root=project / "run")[0] == STARTED
        save(project / "run", 50, place=project / "out")
    before = sorted(project.rglob("*"))
    if not floor:
        forget(home)
    status, said = start(root=other / "run")
    assert status == STARTED, said
    assert ("belongs to the run in" in said) == (original == "stays")
    assert "does not exist" not in said
    assert (named(other), record(other / "run").saved) == ((str(other / "out"),), True)
    assert (saved(other), sorted(project.rglob("*"))) == ([3, 2, 1], before)
    assert start(root=other / "run")[0] == STARTED
    # The floor has come along under the new name.
    remove(save(other / "run", place=other / "out").entries()[0])
    status, said = start(root=other / "run")
    assert (status, str(other / "out") in said) == (EXIT_UNUSABLE, True)


def test_a_moved_project_without_its_newest_checkpoint(project, start, tmp_path):  # noqa: F811
    """To move a run does not hide that it was set back, and with --accept-rollback nobody asks again."""
    remove(save(project / "run", place=project / "out").entries()[0])
    other = project.rename(tmp_path / "p2")
    status, said = start(root=other / "run")
    assert (status, "step 2 (generation 2), 1 step less" in said) == (EXIT_UNUSABLE, True), said
    assert start("--accept-rollback", root=other / "run")[0] == STARTED
    assert start(root=other / "run")[0] == STARTED


@pytest.mark.parametrize("known_by", ["floor", "record"])
@pytest.mark.parametrize("beside", ["nothing", "an empty one", "another run's"])
def test_a_moved_project_without_its_place(project, start, home, tmp_path, beside, known_by):  # noqa: F811
    """Status 65, and what --accept-rollback would do: the script's directory decides whether the run begins
    from step 1."""
    if known_by == "record":
        forget(home)
    other = project.rename(tmp_path / "p2")
    shutil.rmtree(other / "out")
    if beside == "an empty one":
        (other / "out").mkdir()
    if beside == "another run's":
        save(other / "run", 50, place=other / "out", run_id="another")
    status, said = start(root=other / "run")
    assert status == EXIT_UNUSABLE
    assert "in the directory that the script names, and begins from step 1 if there are none" in said
    assert start("--accept-rollback", root=other / "run")[0] == STARTED


def test_a_copy_of_the_run_alone(project, start, tmp_path):  # noqa: F811
    """Its checkpoints are in the original's place. Only the script knows whether it goes on there: a warning,
    and the worker hears that the run has saved, so it does not begin from zero elsewhere. Without anything
    there either: 65."""
    for copy in (project / "run2", tmp_path / "run3"):
        shutil.copytree(project / "run", copy)
        status, said = start(root=copy)
        assert (status, f"{project / 'out'} belongs to the run in {project / 'run'}" in said) == (
            STARTED,
            True,
        )
        assert (record(copy).saved, record(copy).checkpoints) == (True, (str(project / "out"),))
        # No worker has named its place: the next start knows as much.
        assert start(root=copy)[0] == STARTED
    shutil.copytree(project / "run", tmp_path / "run4")
    shutil.rmtree(project / "out")
    status, said = start(root=tmp_path / "run4")
    assert (status, "in the directory that the script names" in said) == (EXIT_UNUSABLE, True)


def test_a_copy_whose_place_would_be_another_of_the_originals(project, start):  # noqa: F811
    """The way from a copy to its place leads to a place that the original has: that stays the original's."""
    inner = project / "a" / "run"
    shutil.copytree(project / "run", inner)
    shutil.rmtree(project / "run")
    places = (str(inner.with_name("out")), str(project / "out"))
    save(inner, 4, place=inner.with_name("out"))
    RunDirectory(inner, World(), keys=[KEY]).write(
        replace(record(inner), home=str(inner), checkpoints=places)
    )
    shutil.copytree(inner, project / "run")
    status, said = start(root=project / "run")
    assert (status, said.count("belongs to the run in")) == (STARTED, 2), said
    assert find_places(DiskFiles(), project / "run", record(inner)).named == ()
