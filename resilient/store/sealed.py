"""A data file: the stream of ``codec.container``, sealed by ``codec.cipher``, written front to back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from resilient.codec import container
from resilient.codec.cipher import Cipher
from resilient.codec.keys import key_id
from resilient.codec.record import Record, Sink
from resilient.config import Sealing
from resilient.errors import CorruptError, WrongKeyError
from resilient.host.entropy import Entropy, SystemEntropy
from resilient.host.files import Files, Writer
from resilient.store.entry import Entry
from resilient.store.patience import PatientReader, patiently


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


def read_sealed(files: Files, entry: Entry, keys: tuple[bytes, ...], sink: Sink) -> bytes:
    """Reads a data file against its manifest into what ``sink`` gives; returns its ``extra``.

    Raises CorruptError, WrongKeyError when none of the keys is the one it was sealed with, StorageError.
    """
    # Opening draws no randomness; sealing alone does.
    cipher = Cipher(entry.manifest.mode, key_of(entry, keys), SystemEntropy())
    try:
        reader = patiently(files.open, entry.path)
    except FileNotFoundError as error:
        raise CorruptError("the data file is missing") from error
    try:
        blocks = cipher.open(PatientReader(reader), entry.manifest.tags)
        return container.decode(blocks, sink, entry.manifest.plain_bytes)
    finally:
        reader.close()


def key_of(entry: Entry, keys: tuple[bytes, ...]) -> bytes | None:
    """The key that a checkpoint was sealed with; None for one without. Raises WrongKeyError."""
    wanted = entry.manifest.key_id
    if wanted is None:
        return None
    for key in keys:
        if key_id(key) == wanted:
            return key
    raise WrongKeyError(f"{entry.name} is sealed with another key", hint="give the key it was made with")
