"""A data file: the stream of ``codec.container``, sealed by ``codec.cipher``, written front to back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from resilient.codec import container
from resilient.codec.cipher import Cipher
from resilient.codec.keys import key_id
from resilient.codec.tensors import Record, Sink
from resilient.config import Sealing
from resilient.errors import CorruptError, WrongKeyError
from resilient.host.entropy import Entropy, SystemEntropy
from resilient.host.files import Buffer, Files, FileWriter
from resilient.store.entry import Entry
from resilient.store.patience import PatientReader, patiently


@dataclass(frozen=True)
class Written:
    """The facts about a written data file that go into its manifest."""

    file_bytes: int
    plain_bytes: int
    tags: tuple[bytes, ...]


def write_sealed(
    sealing: Sealing, entropy: Entropy, records: Iterable[Record], extra: bytes, writer: FileWriter
) -> Written:
    """Writes records and ``extra``, sealed block by block."""
    return write_stream(sealing, entropy, container.encode(records, extra), writer)


def write_stream(sealing: Sealing, entropy: Entropy, chunks: Iterable[Buffer], writer: FileWriter) -> Written:
    """Writes a plaintext stream, sealed block by block. A chunk must not change while it is written."""
    cipher = Cipher(sealing.mode, sealing.key, entropy)
    file_bytes = plain_bytes = 0
    tags = []
    with closing(cipher.seal(chunks)) as blocks:
        for block in blocks:
            writer.write(block.data)
            file_bytes += len(block.data)
            plain_bytes += block.plain_bytes
            tags.append(block.tag)
    return Written(file_bytes, plain_bytes, tuple(tags))


def read_sealed(files: Files, entry: Entry, keys: tuple[bytes, ...], sink: Sink) -> bytes:
    """Reads a data file, checked against its manifest, into the memory that ``sink`` gives; returns its
    ``extra``.

    Raises CorruptError, WrongKeyError when none of the keys sealed it, StorageError.
    """
    with opened(files, entry, keys) as blocks:
        return container.decode(blocks, sink, entry.manifest.plain_bytes)


@contextmanager
def opened(files: Files, entry: Entry, keys: tuple[bytes, ...]) -> Iterator[Iterator[memoryview]]:
    """The plaintext blocks of a data file, each checked against the manifest (see ``Cipher.open``)."""
    with (
        _reading(files, entry, keys) as (cipher, reader),
        closing(cipher.open(reader, entry.manifest.tags)) as blocks,
    ):
        yield blocks


def glance_sealed(files: Files, entry: Entry, keys: tuple[bytes, ...]) -> None:
    """Checks a data file against its manifest without decrypting (see ``Cipher.glance``)."""
    with _reading(files, entry, keys) as (cipher, reader):
        cipher.glance(reader, entry.manifest.tags)


@contextmanager
def _reading(files: Files, entry: Entry, keys: tuple[bytes, ...]) -> Iterator[tuple[Cipher, PatientReader]]:
    # Only sealing draws randomness, so the entropy is not used here.
    cipher = Cipher(entry.manifest.mode, _key_of(entry, keys), SystemEntropy())
    try:
        reader = PatientReader(patiently(files.open, entry.path))
    except FileNotFoundError as error:
        raise CorruptError("the data file is missing") from error
    try:
        # Before the decoder allocates the memory that the manifest promises.
        if reader.size_bytes != entry.manifest.file_bytes:
            raise CorruptError(f"has {reader.size_bytes} bytes instead of {entry.manifest.file_bytes}")
        yield cipher, reader
    finally:
        reader.close()


def _key_of(entry: Entry, keys: tuple[bytes, ...]) -> bytes | None:
    wanted = entry.manifest.key_id
    if wanted is None:
        return None
    for key in keys:
        if key_id(key) == wanted:
            return key
    raise WrongKeyError(f"{entry.name} is sealed with another key", hint="give the key it was made with")
