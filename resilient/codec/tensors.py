"""The parts of a checkpoint's plaintext: named tensors in MindSpore's dtypes, and append_info entries."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from resilient.errors import UsageError
from resilient.host.files import Buffer

# Bytes per element, by MindSpore's name of the dtype.
ITEM_BYTES = {
    "Bool": 1,
    "Int8": 1,
    "UInt8": 1,
    "Int16": 2,
    "UInt16": 2,
    "Int32": 4,
    "UInt32": 4,
    "Int64": 8,
    "UInt64": 8,
    "Float16": 2,
    "BFloat16": 2,
    "Float32": 4,
    "Float64": 8,
    "Complex64": 8,
    "Complex128": 16,
    "Float8E4M3FN": 1,
    "Float8E5M2": 1,
    "HiFloat8": 1,
}
# Stock's table `tensor_to_ms_type` (mindspore/train/serialization.py) has no entry for these.
NOT_READ_BY_STOCK = frozenset({"Complex64", "Complex128", "Float8E4M3FN", "Float8E5M2", "HiFloat8"})


@dataclass(frozen=True)
class Record:
    """One tensor, or one entry of append_info.

    ``dtype`` is MindSpore's name of it ("Float32"), or "str". ``dims`` is its shape; () for a scalar, (0,)
    for a str. ``data`` are the raw little-endian bytes in row-major order, in one contiguous piece.
    Stock reads ``section`` 0; sections from 1 on hold the tensors of further networks.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    data: Buffer
    section: int = 0


Sink = Callable[[str, str, tuple[int, ...], int, int], memoryview | None]
"""The decoder calls it once per tensor with (name, dtype, dims, size_bytes, section). It returns a writable
view of exactly ``size_bytes`` bytes to fill, or None to skip the tensor."""


def skip_tensor(name: str, dtype: str, dims: tuple[int, ...], size_bytes: int, section: int) -> None:
    """The sink that skips every tensor: the content is only checked."""


def info_record(name: str, value: int | float | bool | str, section: int = 0) -> Record:
    """An entry of append_info in exactly stock's form: Int64, Float32, Bool or UTF-32 str.

    Raises UsageError for an int that does not fit 64 bits and for a value of another type.
    """
    if isinstance(value, bool):
        return Record(name, "Bool", (), struct.pack("<?", value), section)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise UsageError(f"{name} = {value} does not fit 64 bits")
        return Record(name, "Int64", (), struct.pack("<q", value), section)
    if isinstance(value, float):
        return Record(name, "Float32", (), _float32(value), section)
    if isinstance(value, str):
        # An empty string is one NUL, because NumPy's smallest string type has one character.
        content = value.encode("utf-32-le", "surrogatepass") or bytes(4)
        return Record(name, "str", (0,), content, section)
    raise UsageError(f"{name} has type {type(value).__name__}; int, float, bool and str can be saved")


def tensor_bytes(dtype: str, dims: tuple[int, ...]) -> int | None:
    """The size of a tensor; None when the dtype does not say (a str, a dtype of a later MindSpore)."""
    item_bytes = ITEM_BYTES.get(dtype)
    return None if item_bytes is None else math.prod(dims) * item_bytes


def stock_reads(record: Record) -> bool:
    """Whether stock's reader returns this record unchanged."""
    return record.dtype == "str" or (record.dims != (0,) and record.dtype not in NOT_READ_BY_STOCK)


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        # Stock converts in C, which gives infinity where struct raises.
        return struct.pack("<f", math.copysign(math.inf, value))
