"""Sealing: the plaintext in blocks of 4 MiB, each in MindSpore's own encrypted block format.

Stock's container (mindspore/ccsrc/utils/crypto.cc), every number a little-endian int32:

    AES-GCM   d8 5e 3a 7f | tag 16 | n+24 | 16 | iv 16 | n | ciphertext n
    AES-CBC   d9 5e 3a 7f |          n+24 | 16 | iv 16 | n | ciphertext n      PKCS#7 padded
    SM4-CBC   da 5e 3a 7f |          n+24 | 16 | iv 16 | n | ciphertext n      PKCS#7 padded
    plain     the bytes themselves

A file is a sequence of blocks; all but the last hold exactly BLOCK_BYTES of plaintext. Stock accepts any
order and any origin of the blocks, and CBC accepts any bytes at all. So every block has a tag that the
manifest binds in order:

    AES-GCM   the GCM tag, which authenticates the block under the key
    CBC       HMAC-SHA256 over the block as it is on disk, under the manifest key; checked before decrypting
    plain     SHA-256 of the block: detects accidents, not malice

Of GCM's 16 IV bytes only the first 12 are the nonce. The other 4 are authenticated by nothing, so we write
zeros and demand zeros. Nonces are random, 96 bits, never reused on purpose: 2**32 blocks (16 PiB) under one
key keep the chance of a collision below 2**-32.

No length field is believed: each is checked against BLOCK_BYTES and the file's size before it is used.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as _OpenSSL
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from resilient.codec.keys import check_key_length, manifest_key
from resilient.errors import CorruptError
from resilient.host.entropy import Entropy
from resilient.host.files import Buffer, Reader

BLOCK_BYTES = 4 * 1024 * 1024

_IV_BYTES = 16
_NONCE_BYTES = 12
_SLACK_BYTES = 32  # OpenSSL wants room for one more cipher block than it writes


@dataclass(frozen=True)
class SealedBlock:
    """One block as it goes to disk. ``data`` is only valid until the next block but one is asked for."""

    data: Buffer
    tag: bytes
    plain_bytes: int


class Cipher:
    """Seals and opens whole streams, block by block. Memory: four blocks, whatever the stream's length."""

    def __init__(self, mode: str | None, key: bytes | None, entropy: Entropy) -> None:
        self.mode = mode
        self._format = _format_of(mode, key, entropy)
        self.tag_bytes = self._format.tag_bytes

    def seal(self, chunks: Iterable[Buffer]) -> Iterator[SealedBlock]:
        """The stream of ``chunks``, cut into blocks and sealed."""
        size_bytes = self._format.overhead_bytes + BLOCK_BYTES + _SLACK_BYTES
        # Two in turn: a block may still be on its way to the disk while the next one is sealed.
        buffers = [memoryview(bytearray(size_bytes)) for _ in range(2)]
        for number, plain in enumerate(cut(chunks, BLOCK_BYTES)):
            data, tag = self._format.seal(plain, buffers[number % 2])
            yield SealedBlock(data, tag, len(plain))

    def open(self, reader: Reader, tags: Sequence[bytes]) -> Iterator[memoryview]:
        """The plaintext blocks of a sealed file, each valid until the next one is asked for.

        Every block is checked against its tag before it is given out. Raises CorruptError at the first
        byte that is not what was sealed, and at the end if the file is longer or shorter than its tags.
        """
        sealed = memoryview(bytearray(self._format.overhead_bytes + BLOCK_BYTES))
        plain = memoryview(bytearray(BLOCK_BYTES + _SLACK_BYTES))
        offset = 0
        for number, tag in enumerate(tags):
            block = self._read_block(reader, offset, sealed, number)
            opened = self._format.open(block, tag, plain)
            if opened is None:
                raise CorruptError(f"block {number} is not the one that was written")
            offset += len(block)
            yield opened
        if offset != reader.size_bytes:
            raise CorruptError(f"the file has {reader.size_bytes - offset} bytes too many")

    def _read_block(self, reader: Reader, offset: int, into: memoryview, number: int) -> memoryview:
        header_bytes = self._format.header_bytes
        remaining = reader.size_bytes - offset - header_bytes
        if remaining <= 0:
            raise CorruptError(f"the file ends before block {number}")
        _read_exactly(reader, into[:header_bytes], offset)
        body_bytes = self._format.body_bytes(into[:header_bytes], remaining)
        if body_bytes is None or not 0 < body_bytes <= remaining:
            raise CorruptError(f"the header of block {number} makes no sense")
        _read_exactly(reader, into[header_bytes : header_bytes + body_bytes], offset + header_bytes)
        return into[: header_bytes + body_bytes]


def cut(chunks: Iterable[Buffer], size_bytes: int) -> Iterator[memoryview]:
    """The stream of ``chunks`` in pieces of ``size_bytes``; only the last may be smaller, none is empty.

    Chunks that cover a whole piece are passed on as views; only what straddles a border is copied.
    Each piece is valid until the next one but one is asked for.
    """
    gathered, other = memoryview(bytearray(size_bytes)), memoryview(bytearray(size_bytes))
    filled = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            if not filled and len(rest) >= size_bytes:
                yield rest[:size_bytes]
                rest = rest[size_bytes:]
                continue
            piece = rest[: size_bytes - filled]
            gathered[filled : filled + len(piece)] = piece
            filled += len(piece)
            rest = rest[len(piece) :]
            if filled == size_bytes:
                yield gathered
                gathered, other, filled = other, gathered, 0
    if filled:
        yield gathered[:filled]


def _read_exactly(reader: Reader, target: memoryview, offset: int) -> None:
    if reader.read_into(target, offset) != len(target):
        raise CorruptError(f"the file ends early, at byte {offset}")


class _Format(Protocol):
    """How one block looks on disk. This is the seam for faster implementations."""

    header_bytes: int
    overhead_bytes: int  # the most that a block is larger than its plaintext
    tag_bytes: int

    def seal(self, plain: memoryview, out: memoryview) -> tuple[memoryview, bytes]:
        """The block on disk (in ``out``, or ``plain`` itself) and its tag."""
        ...

    def body_bytes(self, header: memoryview, remaining: int) -> int | None:
        """How many bytes follow the header; None for a header that nobody writes."""
        ...

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        """The plaintext, or None when the block is not the one with this tag."""
        ...


class _Plain:
    header_bytes = 0
    overhead_bytes = 0
    tag_bytes = 32

    def seal(self, plain: memoryview, out: memoryview) -> tuple[memoryview, bytes]:
        return plain, hashlib.sha256(plain).digest()

    def body_bytes(self, header: memoryview, remaining: int) -> int | None:
        return min(remaining, BLOCK_BYTES)

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        return block if hmac.compare_digest(hashlib.sha256(block).digest(), tag) else None


class _Gcm:
    _header = struct.Struct("<4s16sii12s4si")
    _magic = b"\xd8\x5e\x3a\x7f"
    _padding = bytes(_IV_BYTES - _NONCE_BYTES)
    header_bytes = _header.size
    overhead_bytes = _header.size
    tag_bytes = 16

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        self._cipher = algorithms.AES(key)
        self._entropy = entropy

    def seal(self, plain: memoryview, out: memoryview) -> tuple[memoryview, bytes]:
        nonce = self._entropy.token(_NONCE_BYTES)
        encryptor = _OpenSSL(self._cipher, modes.GCM(nonce)).encryptor()
        size = encryptor.update_into(plain, out[self.header_bytes :])
        encryptor.finalize()
        assert size == len(plain)
        tag = encryptor.tag
        fields = self._magic, tag, size + 24, _IV_BYTES, nonce, self._padding, size
        self._header.pack_into(out, 0, *fields)
        return out[: self.header_bytes + size], tag

    def body_bytes(self, header: memoryview, remaining: int) -> int | None:
        magic, _, total, iv_bytes, _, padding, size = self._header.unpack(header)
        sane = (magic, iv_bytes, padding, total) == (self._magic, _IV_BYTES, self._padding, size + 24)
        return size if sane and size <= BLOCK_BYTES else None

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        _, found, _, _, nonce, _, size = self._header.unpack(block[: self.header_bytes])
        if not hmac.compare_digest(found, tag):
            return None
        decryptor = _OpenSSL(self._cipher, modes.GCM(nonce, tag)).decryptor()
        decryptor.update_into(block[self.header_bytes :], out)
        try:
            decryptor.finalize()
        except InvalidTag:
            return None
        return out[:size]


class _Cbc:
    _header = struct.Struct("<4sii16si")
    header_bytes = _header.size
    overhead_bytes = _header.size + 16
    tag_bytes = 32

    def __init__(self, magic: bytes, key: bytes, cipher: _Algorithm, entropy: Entropy) -> None:
        self._magic = magic
        self._mac_key = manifest_key(key)
        self._cipher = cipher
        self._entropy = entropy

    def seal(self, plain: memoryview, out: memoryview) -> tuple[memoryview, bytes]:
        iv = self._entropy.token(_IV_BYTES)
        padding = 16 - len(plain) % 16
        encryptor = _OpenSSL(self._cipher, modes.CBC(iv)).encryptor()
        size = encryptor.update_into(plain, out[self.header_bytes :])
        size += encryptor.update_into(bytes([padding]) * padding, out[self.header_bytes + size :])
        encryptor.finalize()
        assert size == len(plain) + padding
        self._header.pack_into(out, 0, self._magic, size + 24, _IV_BYTES, iv, size)
        block = out[: self.header_bytes + size]
        return block, self._tag(block)

    def body_bytes(self, header: memoryview, remaining: int) -> int | None:
        magic, total, iv_bytes, _, size = self._header.unpack(header)
        sane = (magic, iv_bytes, total) == (self._magic, _IV_BYTES, size + 24)
        return size if sane and size % 16 == 0 and size <= BLOCK_BYTES + 16 else None

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        # Before decrypting: what an attacker changed must not even reach the padding check.
        if not hmac.compare_digest(self._tag(block), tag):
            return None
        iv = self._header.unpack(block[: self.header_bytes])[3]
        decryptor = _OpenSSL(self._cipher, modes.CBC(iv)).decryptor()
        size = decryptor.update_into(block[self.header_bytes :], out)
        decryptor.finalize()
        padding = out[size - 1]
        if not 1 <= padding <= 16 or out[size - padding : size] != bytes([padding]) * padding:
            return None
        return out[: size - padding]

    def _tag(self, block: memoryview) -> bytes:
        return hmac.digest(self._mac_key, block, "sha256")


_Algorithm = algorithms.AES | algorithms.SM4


def _format_of(mode: str | None, key: bytes | None, entropy: Entropy) -> _Format:
    if mode is None or key is None:
        assert (mode, key) == (None, None), "a mode needs a key, and a key a mode"
        return _Plain()
    check_key_length(mode, key)
    if mode == "AES-GCM":
        return _Gcm(key, entropy)
    if mode == "AES-CBC":
        return _Cbc(b"\xd9\x5e\x3a\x7f", key, algorithms.AES(key), entropy)
    assert mode == "SM4-CBC"
    return _Cbc(b"\xda\x5e\x3a\x7f", key, algorithms.SM4(key), entropy)
