"""Sealed files without a manifest: stock MindSpore's own, and our weights files.

Their blocks have the format of ``cipher`` and may be of any size (stock's hold 64 MiB). Nothing binds their
number and order. AES-GCM authenticates each block under the key. The CBC modes authenticate nothing, so their
plaintext counts as intact only if it parses as a whole. The reader trusts no length field beyond the file's
size.

A plain file may end in "crc_num" and 10 bytes: a big-endian CRC-32 of everything before them (``crc_check``
of CheckpointConfig; mindspore/train/serialization.py).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from resilient.errors import CorruptError
from resilient.host.files import FileReader

MAGIC_BYTES = 4

_PIECE_BYTES = 4 * 1024 * 1024
_MODES = {b"\xd8\x5e\x3a\x7f": "AES-GCM", b"\xd9\x5e\x3a\x7f": "AES-CBC", b"\xda\x5e\x3a\x7f": "SM4-CBC"}
_GCM_HEADER = struct.Struct("<4s16sii16si")
_CBC_HEADER = struct.Struct("<4sii16si")
_CRC_MARK = b"crc_num"
_CRC_BYTES = len(_CRC_MARK) + 10
_IV_BYTES = 16
_NONCE_BYTES = 12
_UNOPENED = "it cannot be decrypted with this key: another one, or damaged"


def mode_of(reader: FileReader) -> str | None:
    """The mode a file was encrypted in, by its first bytes; None for a plain one."""
    magic = bytearray(MAGIC_BYTES)
    reader.read_into(memoryview(magic), 0)
    return _MODES.get(bytes(magic))


def plaintext(reader: FileReader, mode: str | None, key: bytes | None) -> Iterator[bytes]:
    """The plaintext of a file, block by block.

    ``key`` has a length that ``mode`` accepts; both are None for a plain file. Raises CorruptError when a
    block header makes no sense, or a block does not open with this key.
    """
    if mode is None or key is None:
        assert (mode, key) == (None, None), "a mode needs a key, and a key a mode"
        yield from _pieces(reader)
        return
    offset = 0
    while offset < reader.size_bytes:
        header = _GCM_HEADER if mode == "AES-GCM" else _CBC_HEADER
        magic, *tag, total, iv_bytes, iv, size = header.unpack(_read(reader, offset, header.size))
        offset += header.size
        sane = (_MODES.get(magic), total, iv_bytes) == (mode, size + 24, _IV_BYTES)
        if not sane or not 0 < size <= reader.size_bytes - offset:
            raise CorruptError(f"the block header at byte {offset - header.size} makes no sense")
        body = _read(reader, offset, size)
        yield _open_gcm(key, tag[0], iv, body) if tag else _open_cbc(mode, key, iv, body)
        offset += size


def _pieces(reader: FileReader) -> Iterator[bytes]:
    end = reader.size_bytes
    wanted = _crc(reader)
    if wanted is not None:
        end -= _CRC_BYTES
    found = 0
    for offset in range(0, end, _PIECE_BYTES):
        piece = _read(reader, offset, min(_PIECE_BYTES, end - offset))
        found = zlib.crc32(piece, found)
        yield piece
    if wanted is not None and found != wanted:
        raise CorruptError("its content does not match its CRC")


def _crc(reader: FileReader) -> int | None:
    """The CRC at the end of a plain file; None when it has none, as most."""
    if reader.size_bytes < _CRC_BYTES:
        return None
    tail = _read(reader, reader.size_bytes - _CRC_BYTES, _CRC_BYTES)
    number = tail.removeprefix(_CRC_MARK)
    return int.from_bytes(number, "big") if len(number) < len(tail) else None


def _read(reader: FileReader, offset: int, size_bytes: int) -> bytes:
    if size_bytes > reader.size_bytes - offset:
        raise CorruptError(f"the file ends early, behind byte {offset}")
    content = bytearray(size_bytes)
    if reader.read_into(memoryview(content), offset) != size_bytes:
        raise CorruptError(f"the file ends early, behind byte {offset}")
    return bytes(content)


def _open_gcm(key: bytes, tag: bytes, iv: bytes, body: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.GCM(iv[:_NONCE_BYTES], tag)).decryptor()
    plain = decryptor.update(body)
    try:
        return plain + decryptor.finalize()
    except InvalidTag:
        raise CorruptError(_UNOPENED) from None


def _open_cbc(mode: str, key: bytes, iv: bytes, body: bytes) -> bytes:
    if len(body) % 16:
        raise CorruptError("the length of a block is no multiple of 16 bytes")
    algorithm = algorithms.SM4(key) if mode == "SM4-CBC" else algorithms.AES(key)
    decryptor = Cipher(algorithm, modes.CBC(iv)).decryptor()
    plain = decryptor.update(body) + decryptor.finalize()
    padding = plain[-1]
    if not 1 <= padding <= 16 or plain[-padding:] != bytes([padding]) * padding:
        raise CorruptError(_UNOPENED)
    return plain[:-padding]
