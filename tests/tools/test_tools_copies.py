"""A run that was copied is a run of its own; one that was moved is still the same one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tool_runs import draft, every_file, key_file, make_run

from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.store.opening import open_store


@pytest.fixture
def two(tmp_path):
    """An old and a new key, each with its file."""
    return [key_file(tmp_path, name) for name in ("old", "new")]


@pytest.fixture
def run(tmp_path, two):
    """A run under the old key, whose record names its own directory and one of its script's."""
    make_run("run", Sealing("AES-GCM", two[0][0]), weights=True, checkpoints=(str(tmp_path / "run"),))
    return tmp_path / "run"


def rekey(two):
    return ("--old-key-file", two[0][1], "--key-file", two[1][1])


def record(root):
    return json.loads((Path(root) / "run.json").read_text())


def elsewhere(run, two, name="out", step=20):
    """A place of the script's with a checkpoint of the run in it, which run.json then names."""
    directory = RunDirectory(run, World())
    place = run.parent / name
    known = directory.read()
    store = open_store(place, World(), Sealing("AES-GCM", two[0][0]), known.run_id)
    store.commit(draft(step))
    content = record(run)
    content["checkpoints"].append(str(place))
    (run / "run.json").write_text(json.dumps(content))
    return place


def shown(tool, root, key, status=0):
    return {row["file"]: row["step"] for row in tool.json("ls", root, "--key-file", key, status=status)}


def test_rekeying_a_copy_leaves_the_original_alone(tool, run, two):
    """`cp -a`, then rekey: the copy's own files are sealed anew; not a byte of the original changes."""
    shutil.copytree("run", "copy")
    before = every_file("run")
    tool("rekey", "copy", *rekey(two))
    assert every_file("run") == before
    assert "all ok" in tool("verify", "run", "--key-file", two[0][1])
    assert "all ok" in tool("verify", "copy", "--key-file", two[1][1])
    assert record("copy")["checkpoints"] == [str(run.with_name("copy"))]


def test_a_copy_is_looked_at_where_it_is(tool, run, two):
    """ls, export and pin work on the copy's own files."""
    shutil.copytree("run", "copy")
    shutil.rmtree("run/checkpoint")
    assert all(file.startswith(str(run.with_name("copy"))) for file in shown(tool, "copy", two[0][1]))
    tool("pin", "copy", "10", "--key-file", two[0][1])
    tool("export", "copy", "--out", "w.ckpt", "--key-file", two[0][1])
    assert not (run / "checkpoint").exists()


@pytest.mark.parametrize("told", [True, False])
def test_what_lies_outside_belongs_to_the_original(tool, run, two, told):
    """A copy has what was copied with it: a directory of the script's is the original's, and that is said.
    A record that does not tell where the run was at home still names the original's own directory."""
    place = elsewhere(run, two)
    if not told:
        content = record(run)
        del content["home"]
        (run / "run.json").write_text(json.dumps(content))
        (place / "run.json").write_text((run / "run.json").read_text())
    shutil.copytree("run", "copy")
    before = {**every_file("run"), **every_file(place)}
    tool("rekey", "copy", *rekey(two))
    assert f"{place} belongs to the run in {place if not told else run}: not touched" in tool.err
    assert {**every_file("run"), **every_file(place)} == before
    assert "belongs to" in tool.err
    assert len(shown(tool, "copy", two[1][1])) == 3
    assert "belongs to" not in tool.err  # run.json of the copy names it no longer


def test_a_link_to_a_run_is_no_copy(tool, run, two):
    """Another name of the same directory: its places are its own."""
    elsewhere(run, two)
    os.symlink("run", "link")
    assert len(shown(tool, "link", two[0][1])) == 4
    assert tool.err == ""


def test_a_moved_run_takes_its_places_along(tool, run, two):
    """What was below its directory is found below it; a directory of the script's stays where it is."""
    outside = elsewhere(run, two)
    elsewhere(run, two, "run/inner", step=25)
    os.rename("run", "moved")
    assert len(shown(tool, "moved", two[0][1])) == 5
    tool("rekey", "moved", *rekey(two))
    moved = run.with_name("moved")
    assert record("moved")["checkpoints"] == [str(moved), str(outside), str(moved / "inner")]
    assert len(shown(tool, "moved", two[1][1])) == 5


def test_a_place_that_another_run_has_used_too(tool, run, two):
    """Ours are told by their manifests, and sealed anew; what has no manifest, or is the other's, stays."""
    make_run("out", Sealing("AES-GCM", two[0][0]), weights=True)
    place = elsewhere(run, two)
    others = {path: data for path, data in every_file(place).items() if "-3_4" not in path.name}
    tool("rekey", "run", *rekey(two))
    after = every_file(place)
    kept = {path for path in others if path.name != "meta.json"}
    assert {path: after[path] for path in kept} == {path: others[path] for path in kept}
    assert "weights files there may be its" in tool.err
    tool("verify", "run", "--key-file", two[1][1])


def test_a_place_that_is_gone_is_told(tool, run, two):
    """Removed, or not mounted: ls and verify show the others, say it, and end with status 1."""
    place = elsewhere(run, two)
    os.rename(place, "unmounted")
    for command in ("ls", "verify"):
        assert "CKP_rank_0-2_7.ckpt" in tool(command, "run", "--key-file", two[0][1], status=1)
        assert f"{place}, where this run has kept checkpoints, does not exist" in tool.err


@pytest.mark.parametrize(
    "names", [["/"], ["..", ""], ["\ud800"], ["x" * 5000], ["out", "out"], ["/proc/1/fd"]]
)
def test_a_record_may_name_anything(tool, run, two, names):
    """Names of directories that nobody has given are survived."""
    content = record(run)
    content["checkpoints"] += names
    (run / "run.json").write_text(json.dumps(content))
    assert len(shown(tool, "run", two[0][1], status=_missing(names))) == 3


def _missing(names):
    return int(any(name in ("out", "\ud800", "x" * 5000) for name in names))
