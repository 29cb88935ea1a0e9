"""Checking a sealed file without decrypting it."""

from __future__ import annotations

import pytest

from chaos.seeded_entropy import SeededEntropy
from resilient.codec import cipher
from resilient.codec.cipher import Cipher
from resilient.errors import CorruptError

KEY = bytes(range(32))
MODES = [None, "AES-GCM", "AES-CBC", "SM4-CBC"]
HEADER_BYTES = {None: 0, "AES-GCM": 48, "AES-CBC": 32, "SM4-CBC": 32}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cipher, "BLOCK_BYTES", 64)


class Bytes:
    """A reader of bytes in memory; ``read_bytes`` counts the bytes requested."""

    def __init__(self, content):
        self.content = content
        self.size_bytes = len(content)
        self.read_bytes = 0

    def read_into(self, target, offset):
        piece = self.content[offset : offset + len(target)]
        target[: len(piece)] = piece
        self.read_bytes += len(piece)
        return len(piece)

    def close(self):
        pass


def sealed(mode, blocks=3):
    key = None if mode is None else KEY[:16] if mode == "SM4-CBC" else KEY
    ours = Cipher(mode, key, SeededEntropy(1))
    made = [(bytes(b.data), b.tag) for b in ours.seal([bytes(range(64)) * blocks])]
    return ours, [data for data, _ in made], [tag for _, tag in made]


@pytest.mark.parametrize("mode", MODES)
def test_what_was_written_passes(mode):
    """A sound file passes; of AES-GCM nothing but the headers is read."""
    ours, blocks, tags = sealed(mode)
    reader = Bytes(b"".join(blocks))
    ours.glance(reader, tags)
    wanted = len(blocks) * HEADER_BYTES[mode] if mode == "AES-GCM" else reader.size_bytes
    assert reader.read_bytes == wanted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spoil", ["swapped", "missing", "cut", "more", "twice", "empty"])
def test_what_is_not_in_order_is_found(mode, spoil):
    """Blocks that are swapped, missing, truncated, repeated, or followed by more are detected."""
    ours, blocks, tags = sealed(mode)
    if mode is None:
        blocks[0] = b"\x01" * 64
        tags[0] = next(iter(Cipher(None, None, SeededEntropy(1)).seal([blocks[0]]))).tag
    content = {
        "swapped": [blocks[1], blocks[0], blocks[2]],
        "missing": blocks[:2],
        "cut": [*blocks[:2], blocks[2][:-1]],
        "more": [*blocks, b"x"],
        "twice": [*blocks, blocks[2]],
        "empty": [],
    }[spoil]
    with pytest.raises(CorruptError):
        ours.glance(Bytes(b"".join(content)), tags)


@pytest.mark.parametrize("mode", MODES)
def test_a_flipped_bit(mode):
    """Any flipped bit in a header or a body is detected, except in the body of AES-GCM."""
    ours, blocks, tags = sealed(mode)
    for place in range(len(blocks[0])):
        spoilt = bytearray(blocks[0])
        spoilt[place] ^= 1
        content = Bytes(b"".join([bytes(spoilt), *blocks[1:]]))
        # Without decrypting, nothing checks the nonce of AES-GCM either: only opening the block does.
        hidden = mode == "AES-GCM" and (28 <= place < 40 or place >= HEADER_BYTES[mode])
        if hidden:
            ours.glance(content, tags)
            with pytest.raises(CorruptError):
                list(ours.open(content, tags))
        else:
            with pytest.raises(CorruptError):
                ours.glance(content, tags)
