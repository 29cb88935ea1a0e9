"""What can be told of a sealed file without decrypting it.

All blocks but the last have one length on disk (see ``cipher``), so where each begins is known. CBC and plain
blocks are read in full: their tags are over the bytes as they lie there. Of AES-GCM the headers alone are
read, which name the tag but do not prove that the block has it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence

from resilient.codec import cipher
from resilient.codec.keys import manifest_key
from resilient.errors import CorruptError
from resilient.host.files import Reader

_GCM = struct.Struct("<4s16sii12s4si")
_CBC = struct.Struct("<4sii16si")
_GCM_MAGIC = b"\xd8\x5e\x3a\x7f"
_PADDING_BYTES = 16  # what a full block has more in the CBC modes


def glance(reader: Reader, mode: str | None, key: bytes | None, tags: Sequence[bytes]) -> None:
    """Checks order, number and lengths of the blocks, and their tags as far as they show.

    Raises CorruptError.
    """
    full_bytes = cipher.BLOCK_BYTES + _overhead_bytes(mode)
    room = memoryview(bytearray(_GCM.size if mode == "AES-GCM" else full_bytes))
    for number, tag in enumerate(tags):
        offset = number * full_bytes
        size_bytes = min(full_bytes, reader.size_bytes - offset)
        if size_bytes <= _overhead_bytes(mode) - (_PADDING_BYTES if _is_cbc(mode) else 0):
            raise CorruptError(f"the file ends before block {number}")
        block = room[: min(size_bytes, len(room))]
        if reader.read_into(block, offset) != len(block):
            raise CorruptError(f"the file ends early, in block {number}")
        if not _fits(mode, key, block, size_bytes, tag):
            raise CorruptError(f"block {number} is not the one that was written")
    beyond_bytes = reader.size_bytes - len(tags) * full_bytes
    if beyond_bytes > 0:
        raise CorruptError(f"the file has {beyond_bytes} bytes too many")


def _is_cbc(mode: str | None) -> bool:
    return mode in ("AES-CBC", "SM4-CBC")


def _overhead_bytes(mode: str | None) -> int:
    if mode is None:
        return 0
    return _CBC.size + _PADDING_BYTES if _is_cbc(mode) else _GCM.size


def _fits(mode: str | None, key: bytes | None, block: memoryview, size_bytes: int, tag: bytes) -> bool:
    """Whether this is the block with this tag; ``block`` is all of it, or its header."""
    if mode == "AES-GCM":
        magic, found, total, iv_bytes, _, padding, size = _GCM.unpack(block)
        known = (magic, iv_bytes) == (_GCM_MAGIC, 16)
        lengths = (size, total) == (size_bytes - _GCM.size, size + 24)
        return known and lengths and padding == bytes(4) and hmac.compare_digest(found, tag)
    if mode is None or key is None:
        return hmac.compare_digest(hashlib.sha256(block).digest(), tag)
    return hmac.compare_digest(hmac.digest(manifest_key(key), block, "sha256"), tag)
