"""The manifest: bound fields read back, and each kind of rejection has its own error."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.codec.keys import key_id
from resilient.errors import CorruptError, ForeignError, WrongKeyError
from resilient.store import manifest
from resilient.store.manifest import Manifest, Owner, decode, encode

KEY = bytes(range(32))
OTHER = bytes(range(50, 82))
OWNER = Owner("run-1", 0)

numbers = st.integers(0, 2**53 - 1)
manifests = st.builds(
    Manifest,
    run_id=st.just("run-1"),
    rank=st.just(0),
    world_size=numbers,
    step=numbers,
    epoch=numbers,
    step_in_epoch=numbers,
    generation=numbers,
    parent=st.text(),
    file_name=st.text(st.characters(blacklist_characters="/")).map("{}.ckpt".format),
    file_bytes=st.integers(2**50, 2**53 - 1),
    plain_bytes=st.integers(5, 2**50),
    mode=st.just("AES-GCM"),
    key_id=st.just(key_id(KEY)),
    tags=st.lists(st.binary(min_size=16, max_size=16), max_size=5).map(tuple),
    prefix=st.text(),
    reason=st.text(),
    failure=st.booleans(),
    created=st.floats(-1e15, 1e15),
    info=st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text()),
)


def make(**changes):
    values = {
        **dict.fromkeys(("world_size", "step", "epoch", "step_in_epoch", "generation"), 1),
        **{
            "run_id": "run-1",
            "rank": 0,
            "parent": "",
            "file_name": "a.ckpt",
            "file_bytes": 4,
            "plain_bytes": 4,
        },
        **{"mode": "AES-GCM", "key_id": key_id(KEY), "tags": (bytes(16),), "prefix": "CKP"},
        **{"reason": "schedule", "failure": False, "created": 1.5, "info": {}},
    }
    return Manifest(**{**values, **changes})


PLAIN = {"mode": None, "key_id": None, "tags": (bytes(32),)}


@given(manifests)
def test_what_is_bound_comes_back(made):
    """Every field reads back exactly, and the bytes are one line of ASCII."""
    data = encode(made, KEY)
    assert decode(data, [OTHER, KEY], OWNER) == made
    assert data.isascii()
    assert data.count(b"\n") == 1


def test_without_a_key_it_is_a_checksum():
    """An unencrypted manifest is read without keys, and with keys only when that is allowed."""
    data = encode(make(**PLAIN), None)
    assert decode(data, [], OWNER) == make(**PLAIN)
    with pytest.raises(WrongKeyError, match="not encrypted"):
        decode(data, [KEY], OWNER)
    assert decode(data, [KEY], OWNER, allow_plain=True) == make(**PLAIN)


def test_a_missing_key_is_not_corruption():
    """A manifest under a missing key cannot be judged, so it is kept."""
    with pytest.raises(WrongKeyError):
        decode(encode(make(), KEY), [OTHER], OWNER)
    with pytest.raises(WrongKeyError):
        decode(encode(make(), KEY), [], OWNER)


def test_a_damaged_key_id_is_corruption():
    """If only the key's id was changed, that is damage, not a missing key."""
    data = encode(make(), KEY).replace(key_id(KEY).encode(), key_id(OTHER).encode())
    for keys in ([KEY], [KEY, OTHER], [OTHER, KEY]):
        with pytest.raises(CorruptError):
            decode(data, keys, OWNER)


@pytest.mark.parametrize("owner", [Owner("run-2", 0), Owner("run-1", 1)])
def test_another_owners_is_foreign(owner):
    """An authentic manifest of another run or rank is left alone, whether or not its key is known."""
    for keys in ([KEY], [OTHER], []):
        with pytest.raises(ForeignError):
            decode(encode(make(), KEY), keys, owner)


def test_a_later_format_is_left_alone():
    """A manifest of a later version is not corrupt: this version just cannot read it."""
    inner = {**manifest._to_json(make()), "format": 2, "novelty": 1}
    data = manifest._file_of(inner, manifest._mac(inner, KEY).hex())
    with pytest.raises(ForeignError, match="update"):
        decode(data, [KEY], OWNER)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": 2**60},
        {"step": True},
        {"step": "1"},
        {"file_name": "../../etc/passwd.ckpt"},
        {"file_name": "passwd"},
        {"tags": "abc"},
        {"tags": 7},
        {"tags": "AB" * 32},
        {"tags": " " + "ab" * 32},
        {"blocks": 2},
        {"blocks": 0},
        {"mode": "AES-GCM"},
        {"info": []},
        {"unknown": 1},
        {"created": 10**400},
        {"created": True},
        {"plain_bytes": 5},
        {"plain_bytes": 0},
        {"file_bytes": 3},
        {"blocks": [1]},
        {"blocks": "1"},
        {"blocks": True},
    ],
)
def test_nonsense_is_corrupt(change):
    """Authentic or forged, a manifest whose fields make no sense never becomes a checkpoint."""
    inner = {**manifest._to_json(make(**PLAIN)), **change}
    data = manifest._file_of(inner, manifest._mac(inner, None).hex())
    with pytest.raises(CorruptError):
        decode(data, [], OWNER)


def test_a_missing_field_is_corrupt():
    """A manifest without any one of its fields is rejected."""
    for name in manifest._to_json(make(**PLAIN)):
        inner = manifest._to_json(make(**PLAIN))
        del inner[name]
        data = manifest._file_of(inner, manifest._mac(inner, None).hex())
        with pytest.raises((CorruptError, ForeignError)):
            decode(data, [], OWNER)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data):
    """Bytes that are no manifest are a CorruptError and nothing else."""
    with pytest.raises(CorruptError):
        decode(data, [KEY], OWNER)
    assert manifest.claimed_generation(data) == 0


@pytest.mark.parametrize("created", ["NaN", "Infinity", "-Infinity"])
def test_a_time_that_is_no_number_is_corrupt(created):
    """A checkpoint's time is finite, so that retention can calculate with it."""
    inner = {**manifest._to_json(make(**PLAIN)), "created": float(created.lower())}
    with pytest.raises(CorruptError, match="time"):
        decode(manifest._file_of(inner, manifest._mac(inner, None).hex()), [], OWNER)


@pytest.mark.parametrize("mode", ["ROT13", "aes-gcm", ""])
def test_a_mode_that_nobody_knows_is_corrupt(mode):
    """A manifest with an unknown mode is rejected, authentic or not: no cipher opens its data."""
    inner = {**manifest._to_json(make(mode="AES-CBC", tags=(bytes(32),))), "mode": mode}
    with pytest.raises(CorruptError, match="mode"):
        decode(manifest._file_of(inner, manifest._mac(inner, KEY).hex()), [KEY], OWNER)


def test_claims_are_only_claims():
    """The claims of a manifest can be read without its key, and a claim cannot exhaust the numbers."""
    assert manifest.claimed_generation(encode(make(generation=7), KEY)) == 7
    assert manifest.claimed_generation(encode(make(generation=2**50), KEY)) == 0


def test_claims_are_read_without_a_key():
    """The claims of a checkpoint that does not open can be shown; nonsense claims nothing."""
    found = manifest.claims(encode(make(step=7, reason="exception"), KEY))
    assert (found["step"], found["reason"], found["run_id"]) == (7, "exception", "run-1")
    for nonsense in (b"", b"{", b"[]", b"\xff" * 9):
        assert manifest.claims(nonsense) == {}


def test_nothing_secret_is_in_it():
    """Neither the key nor the tags appear in the repr, and the key is not in the file."""
    made = make(tags=(b"secret tag bytes",))
    assert "secret" not in repr(made)
    assert KEY.hex().encode() not in encode(made, KEY)


def test_the_digest_is_of_the_file():
    """A child names its parent by the SHA-256 of the parent's file."""
    data = encode(make(), KEY)
    assert manifest.digest(data) == hashlib.sha256(data).hexdigest()


def test_the_format_is_as_documented():
    """The bytes follow the description: sorted keys, no spaces, and the mac beside the content."""
    outer = json.loads(encode(make(), KEY))
    assert set(outer) == {"mac", "manifest"}
    fields = {field.name for field in dataclasses.fields(Manifest)}
    assert set(outer["manifest"]) == fields | {"format", "blocks"}
