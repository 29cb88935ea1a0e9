"""What others do to a store's folder while it lives: the rules that every life shares."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from store_world import DIRECTORY, make_store, names
from whole_checkpoints import KEYS, draft

from chaos.simulated_disk import SimulatedDisk
from resilient.config import Sealing
from resilient.store import layout


def theirs(run_id, rank):
    """A checkpoint of another run, or of another rank, under the same key as some of ours."""
    disk = SimulatedDisk()
    store = make_store(disk, sealing=Sealing("AES-GCM", KEYS[0]), run_id=run_id, rank=rank)
    entry = store.commit(draft(1, 1))
    return disk.content(entry.path), disk.content(entry.manifest_path)


class Strangers(RuleBasedStateMachine):
    """Spoils, mixes up, puts back and puts beside. ``ledger``, ``disk`` and ``step`` are the life's.

    ``touched`` are names that somebody has had a hand in, ``strangers`` the files that are not ours.
    """

    @precondition(lambda self: len(self.ledger.intact(self.disk)) > 1)
    @rule(
        data=st.data(),
        how=st.sampled_from(["flip", "cut", "zero", "remove", "append", "foreign", "rank", "both"]),
        manifest=st.booleans(),
    )
    def damage(self, data, how, manifest):
        """Somebody spoils a file of a checkpoint."""
        whole = self.ledger.whole[data.draw(st.sampled_from(self.ledger.intact(self.disk)))]
        path = whole.entry.manifest_path if manifest else whole.entry.path
        self.touched.add(whole.entry.name)
        if how == "remove":
            self.disk.remove(path)
            self.disk.sync_directory(DIRECTORY)
        elif how in ("foreign", "rank", "both"):
            files = theirs("run-2", 0) if how != "rank" else theirs("run-1", 1)
            self.disk.put(path, files[manifest])
            if how == "both":
                self.disk.put(whole.entry.path, files[0])
        else:
            good = self.disk.content(path)
            self.disk.put(path, spoilt(good, how, data.draw(st.integers(0, len(good) - 1)), data))
        self.ledger.spoil(self.disk)

    @precondition(lambda self: len(self.ledger.intact(self.disk)) == 1)
    @rule(data=st.data())
    def damage_the_last(self, data):
        """Somebody spoils the only one there is: nobody starts from zero without being told."""
        self.damage(data, "flip", data.draw(st.booleans()))
        self.load()

    @precondition(lambda self: len(self.ledger.intact(self.disk)) > 1)
    @rule(data=st.data(), which=st.sampled_from(["data", "manifest", "both"]))
    def swap(self, data, which):
        """Somebody mixes up the files of two checkpoints."""
        pair = data.draw(
            st.lists(st.sampled_from(self.ledger.intact(self.disk)), min_size=2, max_size=2, unique=True)
        )
        one, other = (self.ledger.whole[serial] for serial in pair)
        self.touched |= {one.entry.name, other.entry.name}
        if which != "manifest":
            self.disk.put(one.entry.path, other.data)
            self.disk.put(other.entry.path, one.data)
        if which != "data":
            self.disk.put(one.entry.manifest_path, other.manifest)
            self.disk.put(other.entry.manifest_path, one.manifest)
        self.ledger.spoil(self.disk)

    @precondition(lambda self: self.ledger.retired and self.ledger.intact(self.disk))
    @rule(data=st.data())
    def put_back(self, data):
        """Somebody copies an old checkpoint, which retention has removed, back from a backup."""
        serial = data.draw(st.sampled_from(sorted(self.ledger.retired)))
        whole = self.ledger.whole[serial]
        later = [self.ledger.whole[s].entry for s in self.ledger.intact(self.disk) if s > serial]
        # Where everything newer was lost meanwhile, numbers were given again.
        older = later and all(whole.entry.generation < entry.generation for entry in later)
        paths = whole.entry.path, whole.entry.manifest_path
        if older and not set(paths) & set(self.disk.paths()):
            self.disk.put(paths[0], whole.data)
            self.disk.put(paths[1], whole.manifest)

    @rule(ahead=st.integers(0, 2), size=st.integers(0, 100))
    def stranger(self, ahead, size):
        """Stock's ModelCheckpoint puts a file of its own where the next one of ours may go."""
        step = self.step + ahead
        name = layout.CheckpointName("CKP", 0, 1 + max(step - 1, 0) // 10, 1 + (step - 1) % 10).data
        self.disk.make_directory(DIRECTORY)
        self.put_strange(name, b"stock" * size)

    def put_strange(self, name, content):
        free = name.endswith(".ckpt") and not {name, layout.manifest_of(name)} & set(names(self.disk))
        if free:
            self.disk.put(DIRECTORY / name, content)
            self.strangers[DIRECTORY / name] = content
            self.touched.add(name)

    @precondition(lambda self: DIRECTORY / layout.META_NAME in self.disk.paths())
    @rule(content=st.sampled_from([b"", b"{", b"x" * 100_000, b'{"last_ckpt_file": "other.ckpt"}']))
    def damage_meta(self, content):
        """Somebody writes something else into meta.json; we do not depend on it."""
        self.disk.put(DIRECTORY / layout.META_NAME, content)


def spoilt(good, how, position, data):
    """The bytes of a file that somebody has spoilt."""
    if how == "flip":
        return (
            good[:position] + bytes([good[position] ^ data.draw(st.integers(1, 255))]) + good[position + 1 :]
        )
    if how == "cut":
        return good[:position]
    if how == "zero":
        return good[:position] + bytes(len(good) - position)
    return good + good[position:]
