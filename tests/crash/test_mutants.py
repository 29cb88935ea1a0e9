"""The proof can fail: every fault that is seeded into the store is noticed, by the invariant it breaks."""

from __future__ import annotations

import pytest
from mutation import Mutant, alive

from chaos.cycle import Cycle
from chaos.invariants import Inspector, ViolationError
from chaos.proof import prove, prove_errors
from resilient.codec import cipher

COMMIT = "resilient.store.commit"
STORE = "resilient.store.store"
SYNC = "        files.sync_directory(place.directory)\n"
SHOW_DATA = "        files.rename(place.data_temporary, place.data)\n"
SHOW_MANIFEST = "        files.rename(place.manifest_temporary, place.manifest)\n"
HIDE_MANIFEST = "    files.rename(place.manifest, place.manifest_temporary)\n"
SYNC_IN_REMOVE = "    files.sync_directory(place.directory)\n"

MUTANTS = [
    Mutant(
        "no file sync",
        COMMIT,
        "        writer.sync()\n",
        "",
        ("NoTmpLeak",),
    ),
    Mutant(
        "no directory sync",
        COMMIT,
        SYNC,
        "        pass\n",
        ("AckDurability", "RecoveryPreserves", "NoTmpLeak"),
    ),
    Mutant(
        "early acknowledgement",
        COMMIT,
        SYNC + "    except BaseException",
        "    except BaseException",
        ("AckDurability",),
    ),
    Mutant(
        "manifest made visible before its data is durable",
        COMMIT,
        SHOW_DATA + SYNC,
        SHOW_DATA,
        ("RecoveryPreserves",),
    ),
    Mutant(
        "manifest before data",
        COMMIT,
        SHOW_DATA + SYNC + SHOW_MANIFEST,
        SHOW_MANIFEST + SYNC + SHOW_DATA,
        ("RecoveryPreserves",),
    ),
    Mutant(
        "data made visible before its manifest is durable",
        COMMIT,
        SYNC + SHOW_DATA,
        SHOW_DATA,
        ("NoTmpLeak",),
    ),
    Mutant(
        "removal of the data before the manifest",
        COMMIT,
        HIDE_MANIFEST + SYNC_IN_REMOVE,
        "    files.remove(place.data)\n" + HIDE_MANIFEST,
        ("RecoveryPreserves",),
    ),
    Mutant(
        "removal without a sync",
        COMMIT,
        HIDE_MANIFEST + SYNC_IN_REMOVE,
        HIDE_MANIFEST,
        ("RecoveryPreserves",),
    ),
    Mutant(
        "a sync that failed is tried again",
        COMMIT,
        "        writer.sync()\n",
        "        try:\n            writer.sync()\n        except StorageError:\n            writer.sync()\n",
        ("NoFsyncRetry", "ErrorNotSwallowed"),
    ),
    Mutant(
        "an error is swallowed",
        COMMIT,
        "        writer.sync()\n",
        "        with contextlib.suppress(StorageError):\n            writer.sync()\n",
        ("ErrorNotSwallowed",),
    ),
    Mutant(
        "prune before publish",
        STORE,
        "        generation = self._next_generation(survey)\n",
        "        generation = self._next_generation(survey)\n"
        "        list(self._remove_all(survey.entries, []))\n",
        ("RetentionCeiling", "AckDurability", "RetentionFloor"),
    ),
    Mutant(
        "retention trusts what it has not read",
        STORE,
        "return self._verified.get(entry.name) == self._identities(entry)",
        "return True",
        ("AckDurability", "RetentionFloor", "RetentionCountsOnlyValid"),
    ),
    Mutant(
        "retention goes by names alone",
        STORE,
        "if not all(map(self._is_verified, staying if surplus else staying[:1])):",
        "if False:",
        ("AckDurability", "RetentionFloor", "RetentionCountsOnlyValid"),
    ),
    Mutant(
        "retention removes nothing",
        STORE,
        "        for entry in reversed(surplus):\n",
        "        for entry in ():\n",
        ("RetentionCeiling",),
    ),
    Mutant(
        "order by name",
        "resilient.store.survey",
        "key=lambda entry: (entry.generation, entry.step, entry.name), reverse=True",
        "key=lambda entry: entry.name",
        ("Liveness", "AckDurability", "FallbackToNewestValid"),
    ),
    Mutant(
        "order by the wall clock",
        "resilient.store.survey",
        "key=lambda entry: (entry.generation, entry.step, entry.name), reverse=True",
        "key=lambda entry: entry.manifest.created",
        ("Liveness", "AckDurability", "FallbackToNewestValid"),
    ),
    Mutant(
        "generations begin anew",
        STORE,
        "max(self._highest_generation, survey.highest_generation) + 1",
        "self._highest_generation + 1",
        ("Liveness", "AckDurability"),
    ),
    Mutant(
        "leaked temporaries",
        "resilient.store.leftovers",
        "        removed: list[str] = []\n",
        "        return (), ()\n        removed: list[str] = []\n",
        ("NoTmpLeak",),
    ),
    Mutant(
        "recovery removes without a sync",
        "resilient.store.leftovers",
        "            if temporary:\n",
        "            if False:\n",
        ("NoTmpLeak", "RecoveryPreserves"),
    ),
    Mutant(
        "recovery believes any temporary manifest",
        "resilient.store.leftovers",
        "        if owned is not None:\n",
        "        if False:\n",
        ("NoTmpLeak",),
    ),
    Mutant(
        "no tag check, plain",
        "resilient.codec.cipher",
        "return hmac.compare_digest(hashlib.sha256(block).digest(), tag)",
        "return True",
        ("NeverLoadCorrupt",),
    ),
    Mutant(
        "no tag check, AES-GCM",
        "resilient.codec.cipher",
        "            decryptor.finalize()\n        except",
        "            pass\n        except",
        ("NeverLoadCorrupt", "PublishedNeverTorn", "AtomicVisibility"),
    ),
    Mutant(
        "one nonce for all",
        "resilient.codec.cipher",
        "nonce = self._entropy.token(self._format.nonce_bytes)",
        "nonce = bytes(self._format.nonce_bytes)",
        ("NonceUnique",),
    ),
    Mutant(
        "in-place write",
        COMMIT,
        "        written = write_synced(files, place.data_temporary, write_data)\n",
        "        written = write_synced(files, place.data, write_data)\n"
        "        files.rename(place.data, place.data_temporary)\n",
        ("NoTmpLeak",),
    ),
    Mutant(
        "overwriting a committed file",
        "resilient.store.layout",
        "if name.data not in taken and name.manifest not in taken)",
        "if True)",
        ("AckDurability",),
        also=Mutant("unasserted", COMMIT, "    assert not taken,", "    assert taken is not None,"),
    ),
    Mutant(
        "plaintext on the disk",
        "resilient.codec.cipher",
        "        tag = encryptor.tag\n",
        "        tag = encryptor.tag\n        out[self.header_bytes : self.header_bytes + size] = plain\n",
        ("NoPlaintext",),
    ),
    Mutant(
        "recovery writes each time",
        "resilient.store.meta",
        "if _current(files, path) != data:",
        "if True:",
        ("RecoverIdempotent",),
    ),
]

CYCLES = [
    Cycle(3, 2, "AES-GCM"),
    Cycle(2, 1, None, again=True),
    Cycle(3, 1, "AES-GCM", spoilt=2),
    Cycle(3, 2, None, spoilt=2),
]


def first_violation():
    for cycle in CYCLES:
        inspector = Inspector()
        prove(cycle, inspector)
        prove_errors(cycle, inspector)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cipher, "BLOCK_BYTES", 128)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_fault_is_noticed(mutant):
    """Each fault breaks an invariant, and it is one of those that it should break."""
    with alive(mutant), pytest.raises(ViolationError) as caught:
        first_violation()
    assert caught.value.invariant in mutant.invariants, str(caught.value)


def test_without_a_fault_nothing_is_noticed():
    """The store as it is passes what the mutants are held against."""
    first_violation()
