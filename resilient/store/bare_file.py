"""Reads files without a manifest: opens them with the key that fits, and parses them whole.

These are stock MindSpore's checkpoints, and the weights files. A file that opens and parses to its last byte
counts as intact; no stronger check exists for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resilient.codec import bare, container
from resilient.codec.keys import KEY_BYTES
from resilient.codec.tensors import Sink
from resilient.errors import CorruptError, WrongKeyError
from resilient.host.files import FileReader, Files
from resilient.store.patience import PatientReader, patiently


@dataclass(frozen=True)
class OpeningKey:
    """The mode and key that open a file, both None for one that is not encrypted."""

    mode: str | None
    key: bytes | None = field(repr=False)


def read_stock(files: Files, path: Path, keys: Sequence[bytes], sink: Sink) -> OpeningKey:
    """Reads a file into the memory that ``sink`` gives (see ``container.decode``); returns what opened it.

    It tries the keys in turn, so the caller keeps only what the sink received under the last one. Raises
    CorruptError, WrongKeyError when it is encrypted and no key fits, FileNotFoundError, StorageError.
    """
    with _reading(files, path) as reader:
        openings = _openings(bare.mode_of(reader), keys)
        failures: list[CorruptError] = []
        for opening in openings:
            try:
                chunks = bare.plaintext(reader, opening.mode, opening.key)
                container.decode(chunks, _bounded(sink, reader.size_bytes))
                return opening
            except CorruptError as error:
                failures.append(error)
    if not failures:
        raise WrongKeyError("it is encrypted, and no key for it was given", hint="name it with --key-file")
    raise failures[0]


def is_encrypted(files: Files, path: Path) -> bool:
    """Whether a file needs a key. Raises FileNotFoundError, StorageError."""
    with _reading(files, path) as reader:
        return bare.mode_of(reader) is not None


@contextmanager
def plaintext(files: Files, path: Path, opening: OpeningKey) -> Iterator[Iterator[bytes]]:
    """The plaintext of a file, block by block."""
    with _reading(files, path) as reader:
        yield bare.plaintext(reader, opening.mode, opening.key)


@contextmanager
def _reading(files: Files, path: Path) -> Iterator[FileReader]:
    reader = patiently(files.open, path)
    try:
        yield PatientReader(reader)
    finally:
        reader.close()


def _openings(mode: str | None, keys: Sequence[bytes]) -> list[OpeningKey]:
    if mode is None:
        return [OpeningKey(None, None)]
    return [OpeningKey(mode, key) for key in dict.fromkeys(keys) if len(key) in KEY_BYTES[mode]]


def _bounded(sink: Sink, limit_bytes: int) -> Sink:
    """The same sink, limited to as much memory per tensor as the file has bytes."""

    def bounded(
        name: str, dtype: str, dims: tuple[int, ...], size_bytes: int, section: int
    ) -> memoryview | None:
        if size_bytes > limit_bytes:
            raise CorruptError(f"{name} claims {size_bytes} bytes, more than there are")
        return sink(name, dtype, dims, size_bytes, section)

    return bounded
