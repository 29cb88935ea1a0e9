"""Keys: every source returns the key or an error with the reason, and never shows the key."""

from __future__ import annotations

import base64
import concurrent.futures
import os
import sys

import pytest

from resilient.codec import keys
from resilient.codec.keys import (
    default_key,
    from_command,
    from_file,
    from_passphrase_file,
    key_id,
    make_file,
    manifest_key,
)
from resilient.errors import KeySourceError

KEY = bytes(range(200, 232))


def private(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        KEY + b"\n",
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\n",
        base64.b64encode(KEY) + b"\n",
        base64.b64encode(KEY) + b"\r\n",
    ],
)
def test_a_key_file_is_raw_hexadecimal_or_base64(tmp_path, content):
    """All three ways to write a key give the same key, with or without a newline."""
    assert from_file(private(tmp_path / "key", content), "AES-GCM") == KEY


@pytest.mark.parametrize("size", [16, 24])
def test_shorter_aes_keys_and_sm4_keys(tmp_path, size):
    """AES keys of 16 and 24 bytes are accepted too; SM4 needs 16."""
    path = private(tmp_path / "key", KEY[:size])
    assert from_file(path, "AES-CBC") == KEY[:size]
    if size == 16:
        assert from_file(path, "SM4-CBC") == KEY[:16]
        assert from_file(private(tmp_path / "hex", KEY[:16].hex().encode()), "SM4-CBC") == KEY[:16]
    else:
        with pytest.raises(KeySourceError):
            from_file(path, "SM4-CBC")


def test_a_raw_key_may_end_in_a_newline_byte(tmp_path):
    """A newline as the last byte of a raw key belongs to the key."""
    key = KEY[:31] + b"\n"
    assert from_file(private(tmp_path / "key", key), "AES-GCM") == key


def test_an_ambiguous_key_is_refused(tmp_path):
    """32 hexadecimal digits may be 16 bytes or 32: a wrong guess would lose every checkpoint."""
    path = private(tmp_path / "key", KEY[:16].hex().encode())
    with pytest.raises(KeySourceError, match="more than one possible reading"):
        from_file(path, "AES-GCM")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    """A file that is not private is rejected, with a hint of the command that makes it private."""
    path = private(tmp_path / "key", KEY)
    path.chmod(mode)
    with pytest.raises(KeySourceError, match="chmod 600"):
        from_file(path, "AES-GCM")


def test_what_is_not_a_key_file_is_refused(tmp_path):
    """A file that is missing, a directory, a FIFO, empty or too long is rejected at once."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir()
    private(tmp_path / "empty", b"")
    private(tmp_path / "long", bytes(10_000))
    for name in ("missing", "directory", "fifo", "empty", "long"):
        with pytest.raises(KeySourceError):
            from_file(tmp_path / name, "AES-GCM")


def printing(text, status=0):
    return f"{sys.executable} -c \"import sys; sys.stdout.write('{text}'); sys.exit({status})\""


def test_a_command_prints_the_key():
    """The command runs without a shell and its output is read like a key file."""
    assert from_command(printing(KEY.hex()), "AES-GCM") == KEY
    with pytest.raises(KeySourceError):
        from_command(f"echo {KEY.hex()} | cat", "AES-GCM")


@pytest.mark.parametrize(
    "command", [printing(KEY.hex(), 3), "/no/such/program", "", "unfinished 'quote", "true"]
)
def test_a_failing_command_gives_no_key(command):
    """A command that fails, is missing or prints nothing raises an error, which does not show its output."""
    with pytest.raises(KeySourceError) as caught:
        from_command(command, "AES-GCM")
    assert KEY.hex() not in str(caught.value)


def test_a_command_that_hangs_is_stopped(monkeypatch):
    """A command has a deadline, and the error does not keep its output."""
    monkeypatch.setattr(keys, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(KeySourceError, match="took more than") as caught:
        from_command("sleep 30", "AES-GCM")
    assert caught.value.__cause__ is None


def test_a_passphrase_is_stretched(tmp_path):
    """Passphrase and salt decide the key; one trailing newline does not."""
    path = private(tmp_path / "pass", b"correct horse")
    key = from_passphrase_file(path, bytes(16), "AES-GCM")
    assert len(key) == 32
    assert from_passphrase_file(private(tmp_path / "p2", b"correct horse\n"), bytes(16), "AES-GCM") == key
    assert from_passphrase_file(path, b"\1" * 16, "AES-GCM") != key
    assert len(from_passphrase_file(path, bytes(16), "SM4-CBC")) == 16


def test_a_passphrase_is_private_and_not_empty(tmp_path):
    """An empty passphrase, and one that others can read, are rejected."""
    with pytest.raises(KeySourceError, match="empty"):
        from_passphrase_file(private(tmp_path / "pass", b"\n"), bytes(16), "AES-GCM")
    path = private(tmp_path / "open", b"x")
    path.chmod(0o644)
    with pytest.raises(KeySourceError, match="chmod 600"):
        from_passphrase_file(path, bytes(16), "AES-GCM")


def test_the_default_key_is_made_once(tmp_path):
    """The first use makes a private key, later ones read the same; SM4 has its own."""
    home = tmp_path / "config"
    key, path, created = default_key(home, "AES-GCM")
    assert created
    assert len(key) == 32
    assert path == home / "resilient" / "key"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert default_key(home, "AES-CBC") == (key, path, False)
    sm4, sm4_path, _ = default_key(home, "SM4-CBC")
    assert len(sm4) == 16
    assert sm4_path != path
    assert sorted(os.listdir(path.parent)) == ["key", "key-sm4"]


def test_two_processes_make_one_default_key(tmp_path):
    """Any number of processes that make the default key at the same moment get the same one."""
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        results = list(pool.map(_made_in, [tmp_path / str(i // 8) for i in range(64)]))
    for group in range(8):
        made = results[group * 8 : group * 8 + 8]
        assert len({key for key, _ in made}) == 1
        assert sum(created for _, created in made) == 1


def _made_in(home):
    key, _, created = default_key(home, "AES-GCM")
    return key, created


def test_an_unusable_home_is_the_users_to_fix(tmp_path):
    """If no key can be made, the error says what to do instead."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeySourceError, match="--key-file"):
        default_key(tmp_path / "file", "AES-GCM")


def test_a_key_that_cannot_be_made_is_told(tmp_path):
    """Without a folder for the key, the error names the file and the system's reason; nothing is created."""
    path = tmp_path / "missing" / "key"
    with pytest.raises(KeySourceError, match=r"missing/key: No such file"):
        make_file(path, "AES-GCM")
    assert os.listdir(tmp_path) == []


def test_derived_values_are_separate_and_fixed():
    """Key id and manifest key differ per key, reveal nothing about each other, and never change."""
    assert key_id(KEY) != key_id(KEY[:16])
    assert len(key_id(KEY)) == 16
    assert not manifest_key(KEY).hex().startswith(key_id(KEY))
    # Written down, so that a change that would orphan every existing checkpoint cannot slip in.
    assert key_id(bytes(32)) == KNOWN_ID
    assert manifest_key(bytes(32)).hex() == KNOWN_MANIFEST_KEY


# RFC 5869 by hand: HMAC-SHA256(HMAC-SHA256("resilient-run", 32 zeros), context + 0x01).
def _hkdf(key, size, context):
    import hashlib
    import hmac

    extracted = hmac.digest(b"resilient-run", key, hashlib.sha256)
    return hmac.digest(extracted, context + b"\x01", hashlib.sha256)[:size]


KNOWN_ID = _hkdf(bytes(32), 8, b"key id 1").hex()
KNOWN_MANIFEST_KEY = _hkdf(bytes(32), 32, b"manifest 1").hex()
