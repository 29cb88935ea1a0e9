"""The plaintext of a checkpoint: MindSpore's protobuf records, and fields that stock MindSpore skips.

The stream is one protobuf message, which a reader may also treat as many concatenated ones:

    Checkpoint { repeated Value value = 1; bytes extra = 1000; repeated Ours ours = 1001 }
    Value      { string tag = 1; TensorProto tensor = 2 }
    TensorProto{ repeated int64 dims = 1 (unpacked); string tensor_type = 2; bytes tensor_content = 3 }
    Ours       { uint32 section = 1; Value value = 2 }

``value`` is stock's (mindspore/train/checkpoint_pb2.py); stock skips the unknown fields 1000 and 1001.
``extra`` comes first and at most once; we do not interpret it. A tensor of more than 512 MiB becomes
consecutive records with the same tag, each with the dims of the whole, as in stock's
``_write_parameter_bytes_data``.

Invariants, kept by the encoder and checked by the decoder:

* Fields are in ascending order inside a Value; no field is unknown, and no byte is left over.
* (section, tag) is unique among tensors; the slices of one tensor are adjacent and add up to its size.
* ``ours`` with section 0 holds tensors of stock's section that stock cannot read back: those of dims [0],
  which it takes for scalars, and dtypes missing from its table, on which it fails for the whole file.

The encoder copies nothing: tensors leave as views. The decoder trusts no length field: it allocates memory
only for bytes that have arrived, or that the rest of a stream of known size can hold.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from resilient.codec.tensors import ITEM_BYTES, Record, Sink, stock_reads, tensor_bytes
from resilient.errors import CorruptError
from resilient.host.files import Buffer

SLICE_BYTES = 512 * 1024 * 1024

FIELD_VALUE = 1
FIELD_EXTRA = 1000
FIELD_OURS = 1001

_LENGTH_DELIMITED = 2
_MAX_NAME_BYTES = 64 * 1024
_MAX_DTYPE_BYTES = 64
_MAX_DIMS = 64


def encode(records: Iterable[Record], extra: bytes, slice_bytes: int = SLICE_BYTES) -> Iterator[Buffer]:
    """The plaintext stream, piece by piece: small headers, and views of the tensors' own memory.

    A tensor's memory must not change before the caller has consumed its pieces.
    """
    if extra:
        yield _key(FIELD_EXTRA) + _varint(len(extra))
        yield extra
    seen: set[tuple[int, str]] = set()
    for record in records:
        assert (record.section, record.name) not in seen, f"two tensors are called {record.name}"
        seen.add((record.section, record.name))
        yield from _encode_record(record, slice_bytes)


def decode(chunks: Iterable[Buffer], sink: Sink, size_bytes: int | None = None) -> bytes:
    """Parses a plaintext stream, fills what ``sink`` returns, and returns ``extra`` (b"" when there is none).

    ``size_bytes`` is the length of the whole stream, if the caller knows it. Then no tensor that claims more
    than the rest of the stream reaches the sink, and all tensors together claim no more than the stream.
    Raises CorruptError for anything that the encoder does not produce; the memory filled until then is
    garbage.
    """
    source = _ChunkStream(chunks, size_bytes)
    tensors = _TensorAssembly(sink)
    extra = b""
    first = True
    while not source.at_end():
        field = source.varint()
        if field == FIELD_EXTRA << 3 | _LENGTH_DELIMITED and first:
            extra = source.take(source.length("the extra"))
        elif field == FIELD_VALUE << 3 | _LENGTH_DELIMITED:
            tensors.read(source, _decode_header(source, 0))
        elif field == FIELD_OURS << 3 | _LENGTH_DELIMITED:
            tensors.read(source, _decode_ours(source))
        else:
            raise CorruptError(f"unexpected field {field >> 3} at byte {source.offset}")
        first = False
    tensors.finish()
    if size_bytes is not None and source.offset != size_bytes:
        raise CorruptError(f"the content has {source.offset} bytes instead of {size_bytes}")
    return extra


def stock_part(chunks: Iterable[Buffer], left_out: list[str]) -> Iterator[bytes]:
    """The part of a plaintext stream that stock reads, in pieces that are small even for a large tensor.

    It appends the names in section 0 that stock cannot read to ``left_out``. The stream must be authenticated
    already: this parses only the records that it leaves out. Raises CorruptError.
    """
    source = _ChunkStream(chunks, None)
    while not source.at_end():
        field = source.varint()
        if field == FIELD_VALUE << 3 | _LENGTH_DELIMITED:
            size_bytes = source.varint()
            yield _varint(field) + _varint(size_bytes)
            yield from source.pieces(size_bytes)
        elif field == FIELD_OURS << 3 | _LENGTH_DELIMITED:
            header = _decode_ours(source)
            source.skip(header.content_bytes)
            if header.section == 0 and header.name not in left_out:
                left_out.append(header.name)
        elif field == FIELD_EXTRA << 3 | _LENGTH_DELIMITED:
            source.skip(source.varint())
        else:
            raise CorruptError(f"unexpected field {field >> 3} at byte {source.offset}")


# Encoding


def _encode_record(record: Record, slice_bytes: int) -> Iterator[Buffer]:
    data = _flat(record.data)
    size_bytes = tensor_bytes(record.dtype, record.dims)
    assert size_bytes is None or size_bytes == len(data), f"{record.name} does not have the size of its shape"
    assert size_bytes is not None or len(data) <= slice_bytes, f"{record.dtype} is too large to be split"
    for start in range(0, len(data) or 1, slice_bytes):
        content = data[start : start + slice_bytes]
        yield _record_header(record, len(content))
        if content:
            yield content


def _flat(data: Buffer) -> memoryview:
    view = memoryview(data)
    # memoryview.cast refuses shapes that contain a zero.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _record_header(record: Record, content_bytes: int) -> bytes:
    """The bytes of a record before its content."""
    name = record.name.encode()
    dtype = record.dtype.encode()
    tensor = b"".join(b"\x08" + _varint(dim) for dim in record.dims)
    tensor += b"\x12" + _varint(len(dtype)) + dtype + b"\x1a" + _varint(content_bytes)
    tensor_bytes = len(tensor) + content_bytes
    value = b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(tensor_bytes) + tensor
    value_bytes = len(value) + content_bytes
    if record.section == 0 and stock_reads(record):
        return _key(FIELD_VALUE) + _varint(value_bytes) + value
    ours = b"\x08" + _varint(record.section) + b"\x12" + _varint(value_bytes) + value
    return _key(FIELD_OURS) + _varint(len(ours) + content_bytes) + ours


def _key(field: int) -> bytes:
    return _varint(field << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    assert 0 <= number < 2**63
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


# Decoding


class _ChunkStream:
    """The chunks of a stream as one sequence of bytes. Its early end raises CorruptError."""

    def __init__(self, chunks: Iterable[Buffer], size_bytes: int | None) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self._size_bytes = size_bytes
        self.offset = 0

    def demand(self, size_bytes: int, what: str) -> None:
        """Raises CorruptError when so many bytes cannot follow; call it before allocating memory."""
        if self._size_bytes is not None and size_bytes > self._size_bytes - self.offset:
            raise CorruptError(f"{what} claims {size_bytes} bytes, more than there are")

    def at_end(self) -> bool:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._rest = memoryview(chunk)
        return False

    def some(self, limit_bytes: int) -> memoryview:
        """The next bytes, at least one and at most ``limit_bytes``."""
        if self.at_end():
            raise CorruptError(f"the content ends early, at byte {self.offset}")
        piece, self._rest = self._rest[:limit_bytes], self._rest[limit_bytes:]
        self.offset += len(piece)
        return piece

    def take(self, size_bytes: int) -> bytes:
        # BytesIO hands over its memory without a copy, which matters for an extra as large as the file. With
        # a known stream size the length was checked against it, so the memory is allocated at once.
        taken = io.BytesIO(bytes(size_bytes) if self._size_bytes is not None else b"")
        while size_bytes:
            size_bytes -= taken.write(self.some(size_bytes))
        return taken.getvalue()

    def fill(self, target: memoryview) -> None:
        done = 0
        while done < len(target):
            piece = self.some(len(target) - done)
            target[done : done + len(piece)] = piece
            done += len(piece)

    def skip(self, size_bytes: int) -> None:
        while size_bytes:
            size_bytes -= len(self.some(size_bytes))

    def pieces(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes:
            piece = bytes(self.some(size_bytes))
            size_bytes -= len(piece)
            yield piece

    def byte(self) -> int:
        return self.some(1)[0]

    def expect(self, byte: int) -> None:
        found = self.byte()
        if found != byte:
            raise CorruptError(f"found {found:#04x} instead of {byte:#04x} at byte {self.offset - 1}")

    def varint(self) -> int:
        number = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise CorruptError(f"a number is too large, at byte {self.offset}")

    def length(self, what: str) -> int:
        """The length of the next field, checked against the rest of the stream."""
        size_bytes = self.varint()
        self.demand(size_bytes, what)
        return size_bytes

    def text(self, limit_bytes: int) -> str:
        size_bytes = self.length("a name")
        if size_bytes > limit_bytes:
            raise CorruptError(f"a name of {size_bytes} bytes at byte {self.offset}")
        try:
            return str(self.take(size_bytes), "utf-8")
        except UnicodeDecodeError as error:
            raise CorruptError(f"a name is not UTF-8, at byte {self.offset}") from error


@dataclass(frozen=True)
class _RecordHeader:
    """A record without its content."""

    section: int
    name: str
    dtype: str
    dims: tuple[int, ...]
    content_bytes: int

    @property
    def tensor(self) -> tuple[int, str, str, tuple[int, ...]]:
        return self.section, self.name, self.dtype, self.dims


def _decode_ours(source: _ChunkStream) -> _RecordHeader:
    end = source.varint() + source.offset
    source.expect(0x08)
    section = source.varint()
    source.expect(0x12)
    header = _decode_header(source, section)
    _demand_end(source, header.content_bytes, end)
    return header


def _decode_header(source: _ChunkStream, section: int) -> _RecordHeader:
    """Reads a Value up to its content, which must end where the Value and its tensor end."""
    value_end = source.varint() + source.offset
    source.expect(0x0A)
    name = source.text(_MAX_NAME_BYTES)
    source.expect(0x12)
    tensor_end = source.varint() + source.offset
    dims = _decode_dims(source)
    dtype = source.text(_MAX_DTYPE_BYTES)
    source.expect(0x1A)
    content_bytes = source.varint()
    _demand_end(source, content_bytes, tensor_end)
    _demand_end(source, content_bytes, value_end)
    return _RecordHeader(section, name, dtype, dims, content_bytes)


def _decode_dims(source: _ChunkStream) -> tuple[int, ...]:
    """Reads dims up to and including the key of the dtype that follows them."""
    dims: list[int] = []
    while (key := source.byte()) == 0x08:
        if len(dims) == _MAX_DIMS:
            raise CorruptError(f"a tensor of more than {_MAX_DIMS} dimensions at byte {source.offset}")
        dims.append(source.varint())
    if key != 0x12:
        raise CorruptError(f"a tensor without a dtype at byte {source.offset}")
    return tuple(dims)


def _demand_end(source: _ChunkStream, content_bytes: int, end: int) -> None:
    if source.offset + content_bytes != end:
        raise CorruptError(f"lengths contradict each other at byte {source.offset}")


class _TensorAssembly:
    """Puts the slices of each tensor together in the memory that the sink gives."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._seen: set[tuple[int, str]] = set()
        self._open: tuple[int, str, str, tuple[int, ...]] | None = None
        self._target: memoryview | None = None
        self._total_bytes = 0
        self._done_bytes = 0

    def read(self, source: _ChunkStream, header: _RecordHeader) -> None:
        if self._open is None:
            self._begin(source, header)
        elif self._open != header.tensor or not header.content_bytes:
            raise CorruptError(f"a part of {self._open[1]} is missing")
        end = self._done_bytes + header.content_bytes
        if end > self._total_bytes:
            raise CorruptError(f"{header.name} has more bytes than its shape")
        if self._target is None:
            source.skip(header.content_bytes)
        else:
            source.fill(self._target[self._done_bytes : end])
        self._done_bytes = end
        if end == self._total_bytes:
            self._open = None

    def finish(self) -> None:
        if self._open is not None:
            raise CorruptError(f"the end of {self._open[1]} is missing")

    def _begin(self, source: _ChunkStream, header: _RecordHeader) -> None:
        if (header.section, header.name) in self._seen:
            raise CorruptError(f"{header.name} occurs twice")
        self._seen.add((header.section, header.name))
        dims, total_bytes = _shape(header)
        source.demand(total_bytes, header.name)
        self._open = header.tensor
        self._done_bytes, self._total_bytes = 0, total_bytes
        self._target = self._sink(header.name, header.dtype, dims, total_bytes, header.section)
        assert self._target is None or len(self._target) == total_bytes, "the sink's view has another size"


def _shape(header: _RecordHeader) -> tuple[tuple[int, ...], int]:
    """The dims and the size in bytes of the tensor that begins with this record."""
    size_bytes = tensor_bytes(header.dtype, header.dims)
    if size_bytes is None:
        return header.dims, header.content_bytes
    if header.dims == (0,) and header.content_bytes == ITEM_BYTES[header.dtype]:
        # Stock reads dims [0] as a scalar, so some MindSpore may have written scalars like this.
        return (), header.content_bytes
    return header.dims, size_bytes
