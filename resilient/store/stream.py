"""A data file as a stream: the plaintext of a checkpoint, block by block, without knowing what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from resilient.codec.cipher import Cipher
from resilient.codec.glance import glance
from resilient.config import Sealing
from resilient.errors import CorruptError
from resilient.host.entropy import Entropy, SystemEntropy
from resilient.host.files import Buffer, Files, Writer
from resilient.store.entry import Entry
from resilient.store.patience import PatientReader, patiently
from resilient.store.sealed import Written, key_of


def write_stream(sealing: Sealing, entropy: Entropy, chunks: Iterable[Buffer], writer: Writer) -> Written:
    """Writes a plaintext stream, sealed block by block.

    Chunks are used later than the next one is asked for: each must stay as it is.
    """
    cipher = Cipher(sealing.mode, sealing.key, entropy)
    file_bytes = plain_bytes = 0
    tags = []
    # (A generator, whatever its type says: it must be closed before what it reads from.)
    sealed: Any = cipher.seal(chunks)
    with closing(sealed) as blocks:
        for block in blocks:
            writer.write(block.data)
            file_bytes += len(block.data)
            plain_bytes += block.plain_bytes
            tags.append(block.tag)
    return Written(file_bytes, plain_bytes, tuple(tags))


@contextmanager
def opened(files: Files, entry: Entry, keys: tuple[bytes, ...]) -> Iterator[Iterator[bytes]]:
    """The plaintext blocks of a data file, each checked against the manifest (see ``Cipher.open``).

    Raises CorruptError, WrongKeyError when none of the keys is the one it was sealed with, StorageError.
    """
    # Opening draws no randomness; sealing alone does.
    cipher = Cipher(entry.manifest.mode, key_of(entry, keys), SystemEntropy())
    with _reading(files, entry) as reader:
        blocks: Any = cipher.open(reader, entry.manifest.tags)
        with closing(blocks):
            # A block of the cipher's is only valid until the next one is asked for.
            yield map(bytes, blocks)


def glance_sealed(files: Files, entry: Entry, keys: tuple[bytes, ...]) -> None:
    """Checks a data file against its manifest without decrypting (see ``codec.glance``)."""
    with _reading(files, entry) as reader:
        glance(reader, entry.manifest.mode, key_of(entry, keys), entry.manifest.tags)


@contextmanager
def _reading(files: Files, entry: Entry) -> Iterator[PatientReader]:
    try:
        reader = patiently(files.open, entry.path)
    except FileNotFoundError as error:
        raise CorruptError("the data file is missing") from error
    try:
        yield PatientReader(reader)
    finally:
        reader.close()
