"""Sealing: the plaintext in blocks of 4 MiB, each in MindSpore's own encrypted block format.

Stock's container (mindspore/ccsrc/utils/crypto.cc), every number a little-endian int32:

    AES-GCM   d8 5e 3a 7f | tag 16 | n+24 | 16 | iv 16 | n | ciphertext n
    AES-CBC   d9 5e 3a 7f |          n+24 | 16 | iv 16 | n | ciphertext n      PKCS#7 padded
    SM4-CBC   da 5e 3a 7f |          n+24 | 16 | iv 16 | n | ciphertext n      PKCS#7 padded
    plain     the bytes themselves

A file is a sequence of blocks; all but the last hold exactly BLOCK_BYTES of plaintext. Stock accepts blocks
in any order and from any file, and CBC accepts any bytes at all. So every block has a tag, and the manifest
binds all tags in order:

    AES-GCM   the GCM tag, which authenticates the block under the key
    CBC       HMAC-SHA256 over the block on disk, under the manifest key; checked before decrypting
    plain     SHA-256 of the block: detects accidents, but no tampering

Of GCM's 16 IV bytes only the first 12 are the nonce. Nothing authenticates the other 4, so we write zeros and
demand zeros. Nonces are random, 96 bits: 2**32 blocks (16 PiB) under one key keep the chance of a collision
below 2**-32.

The reader trusts no length field. All full blocks have the same length, so a block's number alone gives its
offset, and a header that says anything else is rejected. So several blocks are sealed or opened at once (see
``parallel``), in order, while nonces are drawn one after the other.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as _OpenSSL
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from resilient.codec import parallel
from resilient.codec.keys import check_key_length, manifest_key
from resilient.errors import CorruptError
from resilient.host.entropy import Entropy
from resilient.host.files import Buffer, FileReader

BLOCK_BYTES = 4 * 1024 * 1024  # a multiple of the ciphers' 16 bytes

_IV_BYTES = 16
_NONCE_BYTES = 12
_SLACK_BYTES = 32  # OpenSSL wants room for one more cipher block than it writes
# Smaller blocks, which only tests have, are not worth a thread, and stay in a fixed order of operations.
_LEAST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class SealedBlock:
    """One block as it goes to disk. ``data`` is valid until the caller draws the next block but one."""

    data: Buffer
    tag: bytes
    plain_bytes: int


class Cipher:
    """Seals and opens whole streams, block by block.

    Memory: twice as many blocks as there are threads and a few more, whatever the stream's length.
    """

    def __init__(self, mode: str | None, key: bytes | None, entropy: Entropy) -> None:
        self.mode = mode
        self._format = _format_of(mode, key)
        self._entropy = entropy
        self.tag_bytes = self._format.tag_bytes

    def seal(self, chunks: Iterable[Buffer]) -> Generator[SealedBlock, None, None]:
        """Cuts the stream of ``chunks`` into blocks and seals them.

        It draws ``chunks`` in the caller's thread, a few blocks ahead of those it yields. A caller that stops
        early must close it (see ``parallel.in_order``).
        """
        threads = self._threads()
        # One buffer more than there are in use: the last yielded block may still be on its way to the disk.
        return parallel.in_order(self._sealings(chunks, threads + 2), threads)

    def _sealings(self, chunks: Iterable[Buffer], ring: int) -> Iterator[Callable[[], SealedBlock]]:
        size_bytes = self._format.overhead_bytes + BLOCK_BYTES + _SLACK_BYTES
        for plain, out in zip(cut(chunks, BLOCK_BYTES, ring), _buffers(ring, size_bytes), strict=False):
            nonce = self._entropy.token(self._format.nonce_bytes) if self._format.nonce_bytes else b""
            yield partial(self._seal_block, plain, nonce, out)

    def _seal_block(self, plain: memoryview, nonce: bytes, out: memoryview) -> SealedBlock:
        data, tag = self._format.seal(plain, nonce, out)
        return SealedBlock(data, tag, len(plain))

    def open(self, reader: FileReader, tags: Sequence[bytes]) -> Generator[memoryview, None, None]:
        """The plaintext blocks of a sealed file, each valid until the caller draws the next one.

        Each block is checked against its tag before it is yielded. Raises CorruptError at the first block
        that was changed since it was sealed, and at the end of a file that has more blocks than tags. Close
        this generator before the reader: it reads ahead.
        """
        threads = self._threads()
        yield from parallel.in_order(self._openings(reader, tags, threads + 1), threads)
        self._demand_end(reader, tags)

    def _openings(
        self, reader: FileReader, tags: Sequence[bytes], ring: int
    ) -> Iterator[Callable[[], memoryview]]:
        blocks = _Blocks(reader, self._full_bytes())
        sealed = _buffers(ring, self._full_bytes())
        opened = _buffers(ring, BLOCK_BYTES + _SLACK_BYTES)
        for number, tag in enumerate(tags):
            yield partial(self._open_block, blocks, number, tag, next(sealed), next(opened))

    def _open_block(
        self, blocks: _Blocks, number: int, tag: bytes, into: memoryview, out: memoryview
    ) -> memoryview:
        block = blocks.read(number, into)
        self._demand_block(block, len(block), number)
        opened = self._format.open(block, tag, out)
        if opened is None:
            raise CorruptError(f"block {number} is not the one that was written")
        return opened

    def glance(self, reader: FileReader, tags: Sequence[bytes]) -> None:
        """Checks a sealed file as far as that needs no decrypting.

        It checks the order, length and tag of each block. It reads CBC and plain blocks in full. Of an
        AES-GCM block it reads only the header, which names the tag but does not prove that the block has it.
        Raises CorruptError.
        """
        full_bytes = self._full_bytes()
        room = self._format.header_bytes if self._format.header_has_tag else full_bytes
        into = memoryview(bytearray(room))
        for number, tag in enumerate(tags):
            start = number * full_bytes
            block = into[: reader.read_into(into, start)]
            self._demand_block(block, min(full_bytes, reader.size_bytes - start), number)
            if not self._format.has_tag(block, tag):
                raise CorruptError(f"block {number} is not the one that was written")
        self._demand_end(reader, tags)

    def _demand_block(self, block: memoryview, size_bytes: int, number: int) -> None:
        """Raises CorruptError unless this header fits a block of ``size_bytes``."""
        if size_bytes <= self._format.header_bytes:
            raise CorruptError(f"the file ends before block {number}")
        if not self._format.is_header(block, size_bytes - self._format.header_bytes):
            raise CorruptError(f"the header of block {number} makes no sense")

    def _demand_end(self, reader: FileReader, tags: Sequence[bytes]) -> None:
        beyond_bytes = reader.size_bytes - len(tags) * self._full_bytes()
        if beyond_bytes > 0:
            raise CorruptError(f"the file has {beyond_bytes} bytes too many")

    def _threads(self) -> int:
        """The number of threads that share the work; 0 when one core is faster than a disk anyway."""
        return parallel.count_threads() if self._format.is_slow and BLOCK_BYTES >= _LEAST_BYTES else 0

    def _full_bytes(self) -> int:
        """The length on disk of each block but the last, which may be shorter."""
        return self._format.overhead_bytes + BLOCK_BYTES


class _Blocks:
    """Reads the blocks of a sealed file one at a time: a disk is fastest from front to back."""

    def __init__(self, reader: FileReader, full_bytes: int) -> None:
        self._reader = reader
        self._full_bytes = full_bytes
        self._turn = threading.Lock()

    def read(self, number: int, into: memoryview) -> memoryview:
        """Block ``number``, or its available part."""
        with self._turn:
            return into[: self._reader.read_into(into, number * self._full_bytes)]


def _buffers(count: int, size_bytes: int) -> Iterator[memoryview]:
    """Yields ``count`` buffers in turn, without end; makes each when it is first needed."""
    made = []
    for _ in range(count):
        made.append(_buffer(size_bytes))
        yield made[-1]
    yield from cycle(made)


def _buffer(size_bytes: int) -> memoryview:
    if size_bytes < _LEAST_BYTES:
        return memoryview(bytearray(size_bytes))
    # Mapped, not allocated: the kernel neither provides nor clears pages that a small state does not touch.
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def cut(chunks: Iterable[Buffer], size_bytes: int, ring: int = 2) -> Iterator[memoryview]:
    """The stream of ``chunks`` in pieces of ``size_bytes``; only the last may be smaller, none is empty.

    Chunks that cover a whole piece pass through as views; only pieces across a border are copied.
    Each piece is valid until the caller draws the ``ring``-th after it.
    """
    buffers = _buffers(ring, size_bytes)
    gathered = next(buffers)
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
                gathered, filled = next(buffers), 0
    if filled:
        yield gathered[:filled]


class _Format(Protocol):
    """The format of one block on disk. Faster implementations plug in here."""

    header_bytes: int
    overhead_bytes: int  # size of a full block minus its plaintext; no other block has more
    tag_bytes: int
    nonce_bytes: int
    header_has_tag: bool
    is_slow: bool  # slower than a disk on one core: 6 GB/s for AES-GCM, 0.9 and 0.1 for the CBC modes

    def has_tag(self, block: memoryview, tag: bytes) -> bool:
        """Whether this is the block with this tag, as far as that is visible without decrypting."""
        ...

    def seal(self, plain: memoryview, nonce: bytes, out: memoryview) -> tuple[memoryview, bytes]:
        """The block on disk (in ``out``, or ``plain`` itself) and its tag."""
        ...

    def is_header(self, block: memoryview, body_bytes: int) -> bool:
        """Whether a block begins with the header that we write before ``body_bytes`` bytes."""
        ...

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        """The plaintext; None when the block is not the one with this tag."""
        ...


class _Plain:
    header_bytes = 0
    overhead_bytes = 0
    tag_bytes = 32
    nonce_bytes = 0
    header_has_tag = False
    is_slow = False

    def has_tag(self, block: memoryview, tag: bytes) -> bool:
        return hmac.compare_digest(hashlib.sha256(block).digest(), tag)

    def seal(self, plain: memoryview, nonce: bytes, out: memoryview) -> tuple[memoryview, bytes]:
        return plain, hashlib.sha256(plain).digest()

    def is_header(self, block: memoryview, body_bytes: int) -> bool:
        return True

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        return block if self.has_tag(block, tag) else None


class _Gcm:
    _header = struct.Struct("<4s16sii12s4si")
    _magic = b"\xd8\x5e\x3a\x7f"
    _padding = bytes(_IV_BYTES - _NONCE_BYTES)
    header_bytes = _header.size
    overhead_bytes = _header.size
    tag_bytes = 16
    nonce_bytes = _NONCE_BYTES
    header_has_tag = True
    is_slow = False

    def __init__(self, key: bytes) -> None:
        self._cipher = algorithms.AES(key)

    def has_tag(self, block: memoryview, tag: bytes) -> bool:
        return hmac.compare_digest(self._header.unpack(block[: self.header_bytes])[1], tag)

    def seal(self, plain: memoryview, nonce: bytes, out: memoryview) -> tuple[memoryview, bytes]:
        encryptor = _OpenSSL(self._cipher, modes.GCM(nonce)).encryptor()
        size = encryptor.update_into(plain, out[self.header_bytes :])
        encryptor.finalize()
        assert size == len(plain)
        tag = encryptor.tag
        fields = self._magic, tag, size + 24, _IV_BYTES, nonce, self._padding, size
        self._header.pack_into(out, 0, *fields)
        return out[: self.header_bytes + size], tag

    def is_header(self, block: memoryview, body_bytes: int) -> bool:
        magic, _, total, iv_bytes, _, padding, size = self._header.unpack_from(block)
        constants = (magic, iv_bytes, padding) == (self._magic, _IV_BYTES, self._padding)
        return constants and (size, total) == (body_bytes, size + 24)

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        _, _, _, _, nonce, _, size = self._header.unpack_from(block)
        if not self.has_tag(block, tag):
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
    nonce_bytes = _IV_BYTES
    header_has_tag = False
    is_slow = True

    def __init__(self, magic: bytes, key: bytes, cipher: _Algorithm) -> None:
        self._magic = magic
        self._mac_key = manifest_key(key)
        self._cipher = cipher

    def seal(self, plain: memoryview, nonce: bytes, out: memoryview) -> tuple[memoryview, bytes]:
        padding = 16 - len(plain) % 16
        encryptor = _OpenSSL(self._cipher, modes.CBC(nonce)).encryptor()
        size = encryptor.update_into(plain, out[self.header_bytes :])
        size += encryptor.update_into(bytes([padding]) * padding, out[self.header_bytes + size :])
        encryptor.finalize()
        assert size == len(plain) + padding
        self._header.pack_into(out, 0, self._magic, size + 24, _IV_BYTES, nonce, size)
        block = out[: self.header_bytes + size]
        return block, self._tag(block)

    def is_header(self, block: memoryview, body_bytes: int) -> bool:
        magic, total, iv_bytes, _, size = self._header.unpack_from(block)
        constants = (magic, iv_bytes) == (self._magic, _IV_BYTES)
        return constants and (size, total) == (body_bytes, size + 24) and size % 16 == 0

    def open(self, block: memoryview, tag: bytes, out: memoryview) -> memoryview | None:
        # Before decrypting: an attacker's bytes must not even reach the padding check.
        if not self.has_tag(block, tag):
            return None
        iv = self._header.unpack_from(block)[3]
        decryptor = _OpenSSL(self._cipher, modes.CBC(iv)).decryptor()
        size = decryptor.update_into(block[self.header_bytes :], out)
        decryptor.finalize()
        padding = out[size - 1]
        if not 1 <= padding <= 16 or out[size - padding : size] != bytes([padding]) * padding:
            return None
        return out[: size - padding]

    def has_tag(self, block: memoryview, tag: bytes) -> bool:
        return hmac.compare_digest(self._tag(block), tag)

    def _tag(self, block: memoryview) -> bytes:
        return hmac.digest(self._mac_key, block, "sha256")


_Algorithm = algorithms.AES | algorithms.SM4


def _format_of(mode: str | None, key: bytes | None) -> _Format:
    if mode is None or key is None:
        assert (mode, key) == (None, None), "a mode needs a key, and a key a mode"
        return _Plain()
    check_key_length(mode, key)
    if mode == "AES-GCM":
        return _Gcm(key)
    if mode == "AES-CBC":
        return _Cbc(b"\xd9\x5e\x3a\x7f", key, algorithms.AES(key))
    assert mode == "SM4-CBC"
    return _Cbc(b"\xda\x5e\x3a\x7f", key, algorithms.SM4(key))
