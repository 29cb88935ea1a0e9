"""The sealed blocks: stock's format, checked by a second implementation; every change is detected."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from bytes_reader import BytesReader
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

from chaos.seeded_entropy import SeededEntropy
from resilient.codec import cipher as cipher_module
from resilient.codec.cipher import BLOCK_BYTES, Cipher, cut
from resilient.codec.keys import manifest_key
from resilient.errors import CorruptError, KeySourceError

KEY = bytes(range(32))
KEYS = {None: None, "AES-GCM": KEY, "AES-CBC": KEY, "SM4-CBC": KEY[:16]}
MODES = list(KEYS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cipher_module, "BLOCK_BYTES", 64)


def seal(mode, data, key=None, seed=1):
    blocks = Cipher(mode, key or KEYS[mode], SeededEntropy(seed)).seal([data])
    sealed = [(bytes(block.data), block.tag) for block in blocks]
    return [data for data, _ in sealed], [tag for _, tag in sealed]


def unseal(mode, data, tags, key=None):
    reader = BytesReader(data)
    return b"".join(bytes(b) for b in Cipher(mode, key or KEYS[mode], SeededEntropy(9)).open(reader, tags))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 65, 128, 200])
def test_round_trip(mode, size):
    """Sealed bytes open to the same bytes, at every block border."""
    plain = bytes(range(256))[:size]
    blocks, tags = seal(mode, plain)
    assert len(blocks) == -(-size // 64)
    assert unseal(mode, b"".join(blocks), tags) == plain


@given(st.lists(st.binary(max_size=200)), st.integers(1, 70))
def test_cutting_changes_nothing_but_the_borders(chunks, size):
    """Cut pieces join to the same stream; all but the last have the size, none is empty."""
    pieces = [bytes(piece) for piece in cut(chunks, size)]
    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(pieces)


@pytest.mark.parametrize("key_bytes", [16, 24, 32])
def test_gcm_agrees_with_another_implementation(key_bytes):
    """A GCM block decrypts and verifies with an independent implementation, in stock's layout."""
    (block, _), tags = seal("AES-GCM", bytes(100), KEY[:key_bytes])
    magic, tag, total, iv_bytes, iv, size = struct.unpack_from("<4s16sii16si", block)
    assert (magic, total, iv_bytes, size) == (bytes.fromhex("d85e3a7f"), 88, 16, 64)
    assert (tag, iv[12:]) == (tags[0], bytes(4))
    other = AES.new(KEY[:key_bytes], AES.MODE_GCM, nonce=iv[:12])
    assert other.decrypt_and_verify(block[48:], tag) == bytes(64)


def test_cbc_agrees_with_another_implementation():
    """A CBC block decrypts with an independent implementation, and its tag is the HMAC of the block."""
    (_, block), tags = seal("AES-CBC", bytes(100))
    magic, total, iv_bytes, iv, size = struct.unpack_from("<4sii16si", block)
    assert (magic, total, iv_bytes, size) == (bytes.fromhex("d95e3a7f"), 48 + 24, 16, 48)
    assert AES.new(KEY, AES.MODE_CBC, iv=iv).decrypt(block[32:]) == bytes(36) + b"\x0c" * 12
    assert tags[1] == hmac.new(manifest_key(KEY), block, hashlib.sha256).digest()


@pytest.mark.parametrize("mode", MODES)
def test_every_bit_counts(mode):
    """A flip of any bit of a sealed file is detected: headers, tags, IVs, padding and ciphertext."""
    blocks, tags = seal(mode, bytes(70))
    data = b"".join(blocks)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptError):
                unseal(mode, damaged, tags)


@pytest.mark.parametrize("mode", MODES)
def test_every_length_counts(mode):
    """A sealed file that is shorter or longer, on a block border or not, is rejected."""
    blocks, tags = seal(mode, bytes(200))
    data = b"".join(blocks)
    for end in range(len(data)):
        with pytest.raises(CorruptError):
            unseal(mode, data[:end], tags)
    for more in (b"\0", blocks[-1], blocks[0]):
        with pytest.raises(CorruptError):
            unseal(mode, data + more, tags)


@pytest.mark.parametrize("mode", MODES)
def test_blocks_have_one_place(mode):
    """Blocks in another order, twice, or from another file of the same key are rejected."""
    blocks, tags = seal(mode, bytes(64) + b"\1" * 64 + b"\2" * 64)
    others, _ = seal(mode, b"\7" * 192, seed=2)
    for wrong in ([1, 0, 2], [0, 0, 2], [0, 2, 1]):
        with pytest.raises(CorruptError):
            unseal(mode, b"".join(blocks[i] for i in wrong), tags)
    with pytest.raises(CorruptError):
        unseal(mode, blocks[0] + others[1] + blocks[2], tags)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode])
def test_another_key_opens_nothing(mode):
    """No block opens under another key."""
    blocks, tags = seal(mode, bytes(100))
    with pytest.raises(CorruptError):
        unseal(mode, b"".join(blocks), tags, key=bytes(16))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode])
@pytest.mark.parametrize("length", [0, 1, 65, 2**31 - 1, -1, -(2**31)])
def test_lengths_are_not_believed(mode, length):
    """A header that claims an impossible length is rejected before anything is read into memory."""
    blocks, tags = seal(mode, bytes(60))
    offsets = {"AES-GCM": (20, 44), "AES-CBC": (4, 28), "SM4-CBC": (4, 28)}[mode]
    damaged = bytearray(blocks[0])
    struct.pack_into("<i", damaged, offsets[0], max(min(length + 24, 2**31 - 1), -(2**31)))
    struct.pack_into("<i", damaged, offsets[1], length)
    with pytest.raises(CorruptError):
        unseal(mode, damaged, tags)


def test_no_nonce_twice():
    """Two blocks with the same content, in one file or two, have different nonces and ciphertexts."""
    cipher = Cipher("AES-GCM", KEY, SeededEntropy(1))
    sealed = [bytes(block.data) for _ in range(2) for block in cipher.seal([bytes(128)])]
    assert len({block[28:40] for block in sealed}) == 4
    assert len({block[48:] for block in sealed}) == 4


@pytest.mark.parametrize(("mode", "size"), [("AES-GCM", 8), ("AES-CBC", 33), ("SM4-CBC", 32), ("ROT13", 16)])
def test_a_key_of_the_wrong_length_is_the_users_to_fix(mode, size):
    """A key that does not fit the mode is rejected before anything is written."""
    with pytest.raises(KeySourceError):
        Cipher(mode, bytes(size), SeededEntropy())


def test_blocks_have_the_size_the_format_says():
    """The block size is part of the format: 4 MiB."""
    assert BLOCK_BYTES == 4 * 1024 * 1024
