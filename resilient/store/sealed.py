"""A data file: the stream of ``codec.container``, sealed by ``codec.cipher``, written front to back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from resilient.codec import container
from resilient.codec.cipher import Cipher
from resilient.codec.container import Record
from resilient.config import Sealing
from resilient.host.entropy import Entropy
from resilient.host.files import Writer


@dataclass(frozen=True)
class Written:
    """What writing a data file yields for its manifest."""

    file_bytes: int
    plain_bytes: int
    tags: tuple[bytes, ...]


def write_sealed(
    sealing: Sealing, entropy: Entropy, records: Iterable[Record], extra: bytes, writer: Writer
) -> Written:
    """Writes records and ``extra``, sealed block by block."""
    cipher = Cipher(sealing.mode, sealing.key, entropy)
    file_bytes = plain_bytes = 0
    tags = []
    for block in cipher.seal(container.encode(records, extra)):
        writer.write(block.data)
        file_bytes += len(block.data)
        plain_bytes += block.plain_bytes
        tags.append(block.tag)
    return Written(file_bytes, plain_bytes, tuple(tags))
