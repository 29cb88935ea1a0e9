"""resilient ls: what is there, whether it can be used, and if not, why not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
from tool_runs import STEPS, draft, every_file, flip, key_file, make_run

from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.store import pins
from resilient.store.opening import open_store
from resilient.tools import main

HEADER = ("STEP", "EPOCH", "REASON", "SIZE", "AGE", "VALID", "LOSS", "CIPHER", "KEY", "FILE")


def test_every_checkpoint_newest_first(tool, tmp_path):
    """Step, epoch, reason, size, age, valid, loss, cipher, key and name; nothing is changed by looking."""
    key, path = key_file(tmp_path, "key")
    store = make_run("run", Sealing("AES-GCM", key))
    store.commit(draft(15, failure=True, reason="exception", info={"loss": float("nan")}))
    before = every_file("run")
    lines = tool("ls", "run", "--key-file", path).splitlines()
    assert lines[0].split() == list(HEADER)
    assert lines[1].split()[:3] == ["15", "2", "exception"]
    assert lines[1].endswith("CKP_rank_0-2_7_breakpoint.ckpt")
    assert [line.split()[0] for line in lines[1:]] == ["15", "15", "10", "5"]
    rows = tool.json("ls", "run", "--key-file", path)
    assert [(row["step"], row["epoch"], row["step_in_epoch"]) for row in rows] == [
        (15, 2, 7),
        (15, 2, 7),
        (10, 2, 2),
        (5, 1, 5),
    ]
    assert {row["valid"] for row in rows} == {True}
    assert [row["loss"] for row in rows] == [None, 1 / 15, 0.1, 0.2]
    assert rows[0]["key_id"] in lines[1]
    assert rows[0]["size_bytes"] == store.entries()[0].path.stat().st_size
    assert every_file("run") == before


def test_json_is_strict(tool):
    """A loss that is NaN is null: not every reader of JSON knows NaN."""
    store = make_run("run")
    store.commit(draft(20, info={"loss": float("inf"), "metrics": {"acc": float("nan")}}))
    row = json.loads(tool("ls", "run", "--json").splitlines()[0], parse_constant=pytest.fail)
    assert (row["loss"], row["metrics"]) == (None, {"acc": None})


def test_an_empty_run_and_no_run(tool, tmp_path):
    """A run without checkpoints says so and is fine; a folder that is none, or not there, is bad usage."""
    make_run("run", steps=())
    assert tool("ls", "run") == "no checkpoints yet in run\n"
    assert tool.json("ls", "run") == []
    tool("ls", "nowhere", status=64)
    assert "there is no directory nowhere" in tool.err
    (tmp_path / "folder").mkdir()
    tool("ls", "folder", status=64)
    assert "is no run directory" in tool.err
    assert not list((tmp_path / "folder").iterdir())


def test_a_folder_of_checkpoints_without_its_record(tool):
    """A directory that the script named: the run's own is asked for."""
    make_run("run")
    os.remove("run/run.json")
    tool("ls", "run", status=64)
    assert "not its run.json" in tool.err


def test_a_damaged_record(tool, tmp_path):
    """A run.json that makes no sense is told, as the thing that is wrong."""
    make_run("run")
    (tmp_path / "run" / "run.json").write_text("{")
    tool("ls", "run", status=1)
    assert "run.json is damaged" in tool.err


def test_another_key_does_not_look_like_nothing(tool, tmp_path):
    """Sealed with a key that was not given: every checkpoint is listed as locked, and the key is named."""
    key, right = key_file(tmp_path, "right")
    make_run("run", Sealing("AES-GCM", key))
    _, wrong = key_file(tmp_path, "wrong")
    for more in ((), ("--key-file", wrong)):
        out = tool("ls", "run", *more, status=1)
        assert out.count("locked") == len(STEPS)
        assert "no checkpoints" not in out
        assert "3 checkpoints are sealed with the key" in tool.err
        assert "--key-file" in tool.err
        rows = tool.json("ls", "run", *more, status=1)
        assert [(row["state"], row["valid"], row["step"]) for row in rows] == [
            ("locked", None, step) for step in reversed(STEPS)
        ]
        assert rows[0]["key_id"] in tool.err
    assert not (tmp_path / "home").exists(), "no key is made by looking"
    assert len(tool.json("ls", "run", "--key-file", wrong, "--key-file", right)) == 3


def test_your_own_key_is_tried(tool, tmp_path):
    """Without options, the key in the user's configuration opens the run."""
    folder = tmp_path / "home" / "resilient"
    folder.mkdir(parents=True)
    key, _ = key_file(folder, "key")
    make_run("run", Sealing("AES-CBC", key))
    assert {row["mode"] for row in tool.json("ls", "run")} == {"AES-CBC"}


def test_a_passphrase_and_a_command(tool, tmp_path):
    """A passphrase with the run's salt, and a command that prints the key, open it too."""
    from resilient.codec import keys

    secret = tmp_path / "phrase"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    key = keys.from_passphrase_file(secret, bytes(16), "AES-GCM")
    make_run("run", Sealing("AES-GCM", key), salt="00" * 16)
    assert len(tool.json("ls", "run", "--passphrase-file", secret)) == 3
    assert len(tool.json("ls", "run", "--key-command", f"echo {key.hex()}")) == 3
    tool("ls", "run", "--key-command", "false", status=64)


def test_bad_ones_are_listed_with_why(tool, tmp_path):
    """A missing data file, a wrong size, a changed manifest, another run's, and an unreadable one."""
    store = make_run("run", steps=(1, 2, 3, 4))
    entries = {entry.step: entry for entry in store.entries()}
    entries[1].path.unlink()
    entries[2].path.write_bytes(entries[2].path.read_bytes() + b"x")
    flip(entries[3].manifest_path, 100)
    foreign = open_store(tmp_path / "run", World(), Sealing(), "another run")
    foreign.commit(draft(9))
    out = tool("ls", "run", status=1)
    assert out.count("BAD") == 3
    assert "its data file is missing" in out
    assert "bytes instead of" in out
    assert "the manifest" in out
    rows = tool.json("ls", "run", status=1)
    states = {row["file"].rpartition("-")[2]: row["state"] for row in rows}
    assert states == {
        "1_1.ckpt": "BAD",
        "1_2.ckpt": "BAD",
        "1_3.ckpt": "BAD",
        "1_4.ckpt": "ok",
        "2_1.ckpt": "foreign",
    }
    assert [row["valid"] for row in rows if row["state"] == "BAD"] == [False] * 3


def test_a_claim_of_any_type_is_survived(tool, tmp_path):
    """What a manifest says that is not authentic may be anything, and must not reach a terminal as it is."""
    store = make_run("run", Sealing("AES-GCM", bytes(32)), steps=(1,))
    path = store.entries()[0].manifest_path
    content = json.loads(path.read_bytes())
    content["manifest"] |= {
        "reason": "\x1b[31mred",
        "created": "long ago",
        "step": [1],
        "info": 7,
        "key_id": "no",
    }
    path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    out = tool("ls", "run", status=1)
    assert "\x1b" not in out
    assert "locked" in out


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000, "1e999", "NaN"])
@pytest.mark.parametrize("field", ["loss", "created", "step", "file_bytes", "generation", "metrics"])
def test_a_number_beyond_all_measure_is_survived(tool, number, field):
    """In a manifest that anybody could have written: listed, as text and as JSON, whatever it says."""
    store = make_run("run", steps=(1, 2))
    path = store.entries()[0].manifest_path
    inner = json.loads(path.read_bytes())["manifest"]
    (inner["info"] if field in ("loss", "metrics") else inner)[field] = "NUMBER"
    if field == "metrics":
        inner["info"][field] = {"a": ["NUMBER", "NUMBER"]}
    spelled = json.dumps(inner, sort_keys=True, separators=(",", ":")).replace('"NUMBER"', number)
    spelled = spelled.replace("1e999", "Infinity")
    mac = hashlib.sha256(spelled.encode()).hexdigest()
    path.write_text(f'{{"mac":"{mac}","manifest":{spelled}}}\n')
    assert main(["ls", "run"]) in (0, 1)
    tool.capfd.readouterr()
    main(["ls", "run", "--json"])
    lines = tool.capfd.readouterr().out.splitlines()
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)
    assert {json.loads(line)["file"].rpartition("-")[2] for line in lines} == {"1_1.ckpt", "1_2.ckpt"}


def test_pins_and_the_quarantine_are_shown(tool, tmp_path):
    """A pinned checkpoint is marked; files in quarantine are counted in one line."""
    store = make_run("run")
    pins.pin(World().files, store.entries()[1], "0" * 16)
    flip(store.entries()[0].path)
    reading = open_store(
        tmp_path / "run", World(), Sealing(), RunDirectory(tmp_path / "run", World()).read().run_id
    )
    assert reading.load_newest(lambda entry: lambda *tensor: None).entry.step == 10
    out = tool("ls", "run")
    assert "CKP_rank_0-2_2.ckpt (pinned)" in out
    assert "1 file in quarantine" in out.splitlines()[-1]
    rows = tool.json("ls", "run")
    assert [row.get("pinned") for row in rows] == [True, False, None]
    assert rows[-1]["type"] == "quarantine"
    assert rows[-1]["files"] == ["CKP_rank_0-2_7.ckpt"]


def test_a_run_that_is_in_use_can_be_looked_at(tool, tmp_path):
    """Listing and verifying take no lock."""
    make_run("run")
    lock = RunDirectory(tmp_path / "run", World()).lock()
    assert len(tool.json("ls", "run")) == 3
    assert len(tool.json("verify", "run")) == 3
    lock.release()


def test_a_checkpoint_that_goes_meanwhile_is_not_bad(tool, tmp_path, monkeypatch):
    """Retention that removes a checkpoint between two of our looks is no damage."""
    from resilient.store.commit import CommitPaths, remove
    from resilient.store.survey import Surveyor

    store = make_run("run", weights=True)
    original = Surveyor.read_manifest
    oldest = store.entries()[-1]

    def slow(surveyor, path):
        data = original(surveyor, path)
        if path.name == oldest.manifest_path.name and oldest.path.exists():
            remove(World().files, CommitPaths(oldest.directory, oldest.name, "0" * 16))
        return data

    monkeypatch.setattr(Surveyor, "read_manifest", slow)
    assert [row["step"] for row in tool.json("ls", "run")] == [15, 10]


def test_a_moved_run_is_found(tool, tmp_path):
    """A run whose directory was renamed: its checkpoints are where it is, not where they were."""
    make_run("run", checkpoints=(str(tmp_path / "run"),))
    os.rename("run", "elsewhere")
    assert len(tool.json("ls", "elsewhere")) == 3


def test_checkpoints_in_a_directory_of_the_scripts(tool, tmp_path):
    """The run's record says where the script keeps them."""
    make_run("out")
    record = RunDirectory(tmp_path / "out", World()).read()
    os.remove("out/run.json")
    run = RunDirectory(tmp_path / "run", World())
    run.open({"run_id": record.run_id, "checkpoints": (str(tmp_path / "out"),)})
    assert len(tool.json("ls", "run")) == 3


def test_bad_usage(tool):
    """No command, an unknown one, an unknown option: 64, and what to do."""
    assert "COMMAND" in tool(status=64)
    for words in (("nothing",), ("ls",), ("ls", "run", "--wat"), ("key",), ("export", "run")):
        tool(*words, status=64)
        assert "--help" in tool.err


def test_a_reader_that_leaves_early(tmp_path):
    """Output that nobody reads any more ends the command quietly."""
    make_run("run", steps=range(1, 40))
    command = f"{sys.executable} -u -m resilient.tools ls run | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.stdout.startswith("STEP")
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_no_framework_is_loaded():
    """The tools import neither MindSpore nor NumPy: they start at once."""
    program = "import sys, resilient.tools; print(*{'mindspore', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.parametrize(
    "command", ["ls", "verify", "export", "pin", "unpin", "rekey", "key make", "key id", "adopt"]
)
def test_every_command_explains_itself(capfd, command):
    """Each has a help text of its own, with an explanation and --json."""
    from resilient.tools import main

    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    said = capfd.readouterr().out
    assert ended.value.code == 0
    assert "--json" in said
    assert len(said.splitlines()) > 12
    assert all(len(line) <= 80 for line in said.splitlines()), said


def test_as_a_program():
    """python -m resilient.tools is the same command."""
    make_run("run")
    done = subprocess.run([sys.executable, "-m", "resilient.tools", "verify", "run"], capture_output=True)
    assert done.returncode == 0
    assert b"3 files read in full: all ok" in done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_fail_no_command(closed):
    """Nobody can be told anything: the exit status tells it, and no file gets what was to be printed."""
    make_run("run")
    before = every_file("run")
    command = f"exec {sys.executable} -m resilient.tools ls"
    assert subprocess.run(["sh", "-c", f"{command} run {closed}"]).returncode == 0
    assert subprocess.run(["sh", "-c", f"{command} nowhere {closed}"]).returncode == 64
    assert every_file("run") == before
