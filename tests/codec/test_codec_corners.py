"""Cases that need an attacker with the key, or another process at work at the same moment."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import HMAC, SHA256
from test_codec_cipher import KEY, MODES, BytesReader, seal, unseal

from chaos.seeded_entropy import SeededEntropy
from resilient.codec import bare, cipher, keys
from resilient.codec.cipher import Cipher
from resilient.errors import CorruptError, KeySourceError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cipher, "BLOCK_BYTES", 64)


@pytest.mark.parametrize(
    "end", [b"\x00" * 16, b"\x11" * 16, b"a" * 14 + b"\x01\x02", b"\x03\x02\x03" * 5 + b"\x10"]
)
def test_wrong_padding_under_a_right_tag_is_corrupt(end):
    """A block under the right key with wrong padding is corrupt: we never write one."""
    iv, plain = bytes(16), bytes(16) + end
    block = struct.pack("<4sii16si", b"\xd9\x5e\x3a\x7f", len(plain) + 24, 16, iv, len(plain))
    block += AES.new(KEY, AES.MODE_CBC, iv=iv).encrypt(plain)
    tag = HMAC.new(keys.manifest_key(KEY), block, SHA256).digest()
    with pytest.raises(CorruptError, match="block 0"):
        unseal("AES-CBC", block, [tag])


class ShrinkingReader(BytesReader):
    """A file that somebody truncates after it was opened: it has fewer bytes than its size says."""

    def __init__(self, data, left):
        super().__init__(data)
        self.data = self.data[:left]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("left", [0, 5, 70, 100])
def test_a_file_that_is_cut_off_while_it_is_read_is_corrupt(mode, left):
    """A file truncated while it is read is corrupt: the size at opening is not trusted either."""
    blocks, tags = seal(mode, bytes(200))
    reader = ShrinkingReader(b"".join(blocks), left)
    key = None if mode is None else KEY[:16] if mode == "SM4-CBC" else KEY
    with pytest.raises(CorruptError):
        list(Cipher(mode, key, SeededEntropy()).open(reader, tags))


def test_a_stock_file_that_is_cut_off_while_it_is_read_is_corrupt():
    """A truncated stock file is corrupt, even if only its length shows it: no short read is zero-filled."""
    with pytest.raises(CorruptError, match="ends early"):
        list(bare.plaintext(ShrinkingReader(bytes(200), 150), None, None))


def status(mode=stat.S_IFREG | 0o600, owner=None, size=64):
    owner = os.geteuid() if owner is None else owner
    return os.stat_result((mode, 1, 1, 1, owner, 0, size, 0, 0, 0))


def test_a_key_file_of_another_user_is_refused():
    """Only key files of this user and root are accepted: another owner could change the key."""
    path = Path("key")
    keys._demand_private(status(), path)
    keys._demand_private(status(owner=0), path)
    with pytest.raises(KeySourceError, match="another user"):
        keys._demand_private(status(owner=os.geteuid() + 1), path)


def test_a_key_that_another_process_has_just_made_stays(tmp_path):
    """If another process makes the key between our check and our file, its key counts."""
    path = tmp_path / "key"
    assert keys._make_key_file(path, 32)
    before = path.read_bytes()
    assert not keys._make_key_file(path, 32)
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == ["key"]
