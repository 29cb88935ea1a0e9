"""What a start believes of a run directory that somebody without the key can write."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace

import pytest

from resilient.codec import keys
from resilient.config import Origin, Sealing, Shun
from resilient.errors import EXIT_UNUSABLE
from resilient.host.world import World
from resilient.run import record_seal
from resilient.run.holdings import PROVEN
from resilient.run.rundir import RunDirectory
from resilient.store.entry import Draft
from resilient.store.opening import open_store
from supervisor.command.cli import main
from supervisor.telling.console import Console
from supervisor.verdict.ledger import LedgerOwner, TrialFile, TrialLedger

STARTED = 9  # the status of the script: it was run
KEY = b"\x01" * 32


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's own key, in a home of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    path = keys.default_path(tmp_path / "home", "AES-GCM")
    path.parent.mkdir(parents=True)
    path.write_text(KEY.hex())
    path.chmod(0o600)
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit(9)")
    return tmp_path / "run"


@pytest.fixture
def start(run, capfd):
    """Starts the run as a user does who names no key; the status, and what was said."""

    def begin(*options, root=run):
        words = ["--run-dir", str(root), "--max-restarts", "0", *options, str(run.with_name("train.py"))]
        capfd.readouterr()
        return main(words), capfd.readouterr().err

    return begin


def record(run):
    return RunDirectory(run, World()).read()


def save(run, *steps, key=KEY, run_id=None, proven=True, place=None):
    """Checkpoints of these steps, as a supervised worker makes them; the store."""
    sealing = Sealing("AES-GCM", key) if key else Sealing()
    store = open_store(place or run, World(), sealing, run_id or record(run).run_id)
    info = {"attempt": 1, **({PROVEN: True} if proven and key else {})}
    for step in steps:
        store.commit(Draft("CKP", 1, step, step, [], b"", "schedule", info=info))
    return store


def remove(entry):
    os.remove(entry.manifest_path)
    os.remove(entry.path)


def edit(run, strip=False, **changes):
    """Changes run.json as somebody does who has no key."""
    content = json.loads((run / "run.json").read_text())
    content.update(changes)
    if strip:
        content.pop("seal", None)
    (run / "run.json").write_text(json.dumps(content))


def plant(run, step=99):
    """A checkpoint that the attacker has made without a key, under the victim's run id, newer than all."""
    entries = save(run).entries()
    elsewhere = run.with_name("attacker")
    made = save(run, *range(1, len(entries) + 2), step, key=None, place=elsewhere)
    entry = made.entries()[0]
    for path in (entry.path, entry.manifest_path):
        shutil.copy(path, entries[0].directory)
    return entry.name


# What the record says


def test_planted_weights_are_not_resumed_from(run, start):
    """A checkpoint without encryption, of a higher generation, and run.json that says it belongs to the run:
    nothing is started, however the record was changed, and the planted state is never the run's."""
    assert start()[0] == STARTED
    save(run, 1, 2)
    name = plant(run)
    sealed = (run / "run.json").read_text()
    status, said = start()
    assert (status, f"not used: {name}" in said) == (STARTED, True)
    planted = open_store(run, World(), Sealing("AES-GCM", KEY), record(run).run_id).survey()
    assert [entry.step for entry in planted.entries] == [2, 1]
    for strip in (False, True):
        edit(run, strip=strip, plain=True, key_id=None, mode=None)
        status, said = start()
        assert (status, "run.json cannot be believed" in said) == (EXIT_UNUSABLE, True)
        (run / "run.json").write_text(sealed)
    forged = json.loads(sealed)
    digest = save(run, key=None).entries()[0].digest
    edit(run, accepted=[digest])
    assert start()[0] == EXIT_UNUSABLE
    assert forged["accepted"] == []


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize(
    "forged",
    [
        {"status": "complete"},
        {"plain": True},
        {"seed": 7},
        {"attempts": 10**6},
        {"checkpoints": ["/somewhere"]},
        {"key_ids": []},
        {"saved": True},
        {"accepted": ["0" * 64]},
        {"something": "of a later version"},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_a_record_that_was_changed_is_refused(run, start, strip, forged):
    """Whatever is changed in a sealed run.json, and whether its seal is left or taken away: status 65, and
    what to do is said. With --accept-unsealed the run goes on, never as a complete one."""
    assert start()[0] == STARTED
    save(run, 1)
    edit(run, strip=strip, **forged)
    status, said = start()
    assert (status, "run.json cannot be believed" in said) == (EXIT_UNUSABLE, True)
    assert "--accept-unsealed" in said
    status, said = start("--accept-unsealed")
    assert (status, "only what the key vouches for elsewhere counts" in said) == (STARTED, True)
    assert start()[0] == STARTED
    assert record(run).accepted == ()


def test_the_home_knows_that_there_was_a_seal(run, start):
    """Where no checkpoint made by this version is left, the floor tells that the record was sealed."""
    assert start()[0] == STARTED
    save(run, 1, proven=False)
    assert start()[0] == STARTED
    edit(run, strip=True, status="complete")
    status, said = start()
    assert (status, "when this run last ran here" in said) == (EXIT_UNUSABLE, True)


def test_a_run_of_an_earlier_version_goes_on(run, start):
    """Its record has no seal and its checkpoints no mark: it is resumed with a warning, and sealed then.
    That it is complete is not believed: the resumed script shows it."""
    RunDirectory(run, World()).open({"key_id": keys.key_id(KEY), "mode": "AES-GCM", "status": "complete"})
    save(run, 1, proven=False)
    before = record(run)
    status, said = start()
    assert (status, "an earlier version has written it" in said) == (STARTED, True)
    assert (record(run).run_id, record(run).seed) == (before.run_id, before.seed)
    status, said = start()
    assert (status, "earlier version" in said) == (STARTED, False)


def test_a_complete_command_is_believed_only_with_a_seal(run, start, capfd):
    """A command that is no script has no checkpoints: a forged "complete" must not keep it from being run."""

    def command(*options):
        words = ["--run-dir", str(run), *options, "--no-python", "true"]
        return main(words), capfd.readouterr().err

    assert command()[0] == 0
    status, said = command()
    assert (status, "is complete" in said) == (0, True)
    edit(run, attempts=5)
    assert command()[0] == EXIT_UNUSABLE
    assert command("--accept-unsealed")[0] == 0


def test_a_record_under_another_key_is_asked_for(run, start, tmp_path):
    """Sealed and saved with one key, started with another, or none: the key is named, and nothing is run."""
    assert start()[0] == STARTED
    save(run, 1)
    other = tmp_path / "other"
    other.write_text("02" * 32)
    other.chmod(0o600)
    for options in (["--key-file", str(other)], ["--no-encrypt"]):
        status, said = start(*options)
        assert (status, f"made with the key {keys.key_id(KEY)}" in said) == (EXIT_UNUSABLE, True)
    own = keys.default_path(tmp_path / "home", "AES-GCM")
    status, said = start("--no-encrypt", "--old-key-file", str(own))
    assert (status, "was encrypted until now" in said) == (STARTED, True)
    for entry in save(run).entries():
        remove(entry)
    assert start("--no-encrypt", "--accept-rollback")[0] == STARTED


def test_an_encrypted_run_that_was_exchanged_is_missed_without_a_key(run, start):
    """Its checkpoints and its record are exchanged for unencrypted ones: --no-encrypt alone takes none of it,
    because the user's home knows that the run was encrypted."""
    assert start()[0] == STARTED
    save(run, 1)
    assert start()[0] == STARTED
    plant(run)
    for entry in save(run).entries():
        remove(entry)
    edit(run, strip=True, plain=True, key_id=None, mode=None, key_ids=[])
    status, said = start("--no-encrypt")
    assert (status, "the run was encrypted when it last ran here" in said) == (EXIT_UNUSABLE, True)


def test_a_name_does_not_steer_the_terminal(capfd):
    """A name that somebody has given to a file in quarantine may be quoted: no control character of it comes
    to the terminal."""
    Console().warn("CKP\x1b]0;owned\x07.ckpt in the\nquarantine: Grüße \udc80")
    assert capfd.readouterr().err == "resilient: CKP?]0;owned?.ckpt in the quarantine: Grüße ?\n"


# The trial ledger


def test_a_forged_ledger_is_not_believed(tmp_path):
    """States are set aside, and batches left out, on the word of the key alone; a training left in its middle
    is assumed. A ledger of an earlier version is read as long as the record is of one."""
    forged = TrialLedger(origin=Origin((Shun(1, 9),), skipped=(3,)))
    complaints = []
    TrialFile(tmp_path, World(), complaints.append).write(forged)

    def read(proven):
        whose = LedgerOwner("", (KEY,), proven)
        return TrialFile(tmp_path, World(), complaints.append, whose=whose).read()

    assert read(proven=False) == forged
    assert complaints == []
    assert read(proven=True) == TrialLedger(unfinished=True)
    assert "not believed" in complaints.pop()
    TrialFile(tmp_path, World(), complaints.append, whose=LedgerOwner("", (KEY,))).write(forged)
    assert read(proven=True) == forged
    path = tmp_path / "trials.json"
    path.write_text(path.read_text().replace("[3]", "[4]"))
    assert read(proven=False) == TrialLedger(unfinished=True)


@pytest.mark.parametrize("keys", [(KEY,), ()], ids=["sealed", "plain"])
def test_the_ledger_of_another_run_is_not_believed(tmp_path, keys):
    """One of the same key, whatever it says: the run would leave out a batch of another one's. One that names
    no run is an earlier version's, which sealed none."""
    said = []
    other = TrialLedger(origin=Origin(skipped=(6,)))

    def ledger(run_id, proven=True):
        return TrialFile(tmp_path, World(), said.append, whose=LedgerOwner(run_id, keys, proven))

    ledger("other").write(other)
    assert ledger("other").read() == other
    for proven in (True, False):
        assert ledger("mine", proven).read() == TrialLedger(unfinished=True)
        assert "is another run's" in said.pop()
    content = json.loads((tmp_path / "trials.json").read_text())
    bare = {name: value for name, value in content.items() if name not in ("run_id", "seal")}
    (tmp_path / "trials.json").write_text(json.dumps(bare))
    assert ledger("mine", proven=False).read() == other
    (tmp_path / "trials.json").write_text(json.dumps(record_seal.seal(bare, keys, "trials")))
    assert ledger("mine").read() == (TrialLedger(unfinished=True) if keys else other)


@pytest.mark.parametrize("content", [None, b"", b"{", b"null", b"[]", b'{"format": 1}', b"\xff"])
def test_a_ledger_that_is_gone_or_junk_may_have_known_of_a_training(tmp_path, content):
    """Where the run has saved, a training left in its middle is assumed, with and without a key. A run that
    has not even begun has no ledger, and a command is no training that could be left."""
    said = []

    def read(**whose):
        whose = LedgerOwner("mine", **whose)
        return TrialFile(tmp_path, World(), said.append, whose=whose).read()

    if content is not None:
        (tmp_path / "trials.json").write_bytes(content)
    assert read(has_saved=True) == read(has_saved=True, keys=(KEY,)) == TrialLedger(unfinished=True)
    assert read() == read(keys=(KEY,), is_command=True) == TrialLedger()
    assert read(keys=(KEY,)) == TrialLedger(unfinished=content is not None)
    assert content != b"null" or "it is no JSON object" in said[0]


@pytest.mark.parametrize("lose", ["junk", "gone", "another's"])
def test_no_script_is_complete_for_want_of_its_ledger(run, start, lose):
    """A training was left in its middle, and the ledger that knows of it is removed, spoilt or exchanged: a
    script that ends without a training is not complete, at this start and at the next one."""
    assert start()[0] == STARTED
    save(run, 1)
    assert start()[0] == STARTED
    path = run / "trials.json"
    assert json.loads(path.read_text())["run_id"] == record(run).run_id
    if lose == "junk":
        path.write_text("{")
    elif lose == "gone":
        path.unlink()
    else:
        other = LedgerOwner("another", (KEY,))
        TrialFile(run, World(), print, whose=other).write(TrialLedger())
    run.with_name("train.py").write_text("print(1)")
    for _ in range(2):
        status, said = start()
        assert (status, "without the training that an earlier attempt has left" in said) == (65, True)


# The seal


def test_a_seal_covers_all_and_one_kind():
    """Any key that has sealed a document vouches for it: unchanged, and as a document of its kind."""
    other = b"\x02" * 32
    content = {"a": [1, 2.5, None], "b": {"c": "\ud800é"}}
    sealed = json.loads(json.dumps(record_seal.seal(content, [KEY, other], "run")))
    for given in ([KEY], [other], [b"\x03" * 32, other]):
        assert record_seal.check(sealed, given, "run") is record_seal.Seal.SEALED
    assert record_seal.check(sealed, [b"\x03" * 32], "run") is record_seal.Seal.LOCKED
    assert record_seal.check(sealed, [KEY], "trials") is record_seal.Seal.BROKEN
    assert record_seal.check({**sealed, "d": 1}, [KEY], "run") is record_seal.Seal.BROKEN
    assert record_seal.check(content, [KEY], "run") is record_seal.Seal.UNSEALED
    for nonsense in (None, {}, [], "x", {keys.key_id(KEY): None}, {keys.key_id(KEY): "\ud800"}):
        assert record_seal.check({**content, "seal": nonsense}, [KEY], "run") is record_seal.Seal.BROKEN
    assert "seal" not in record_seal.seal(content, [], "run")


def test_an_old_reader_understands_a_sealed_record(run):
    """The fields that there were before are where they were: the seal and the new ones stand beside them."""
    directory = RunDirectory(run, World(), keys=[KEY])
    made = replace(directory.open(), saved=True)
    directory.write(made)
    content = json.loads((run / "run.json").read_text())
    assert {"run_id", "created", "seed", "salt", "world_size", "key_id", "plain", "status"} <= content.keys()
    assert content["run_id"] == asdict(made)["run_id"]
    assert directory.open() == made


def test_a_copy_of_a_run_of_an_earlier_version_goes_on(run, start, tmp_path):
    """The home knows of the original's seal, and of no copy: one made before is read as the original was."""
    RunDirectory(run, World()).open({"key_id": keys.key_id(KEY), "mode": "AES-GCM"})
    save(run, 1, proven=False)
    shutil.copytree(run, tmp_path / "copy")
    assert start()[0] == STARTED
    assert start()[0] == STARTED
    status, said = start(root=tmp_path / "copy")
    assert (status, "an earlier version has written it" in said) == (STARTED, True)
