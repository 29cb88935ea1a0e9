"""The safetensors format (huggingface/safetensors, README "Format"), written a tensor at a time.

    8 bytes   little-endian length of the header
    header    JSON: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [begin, end]}},
              padded with spaces to a multiple of 8
    data      the tensors without gaps

Larger elements come first, as the library writes them: so every tensor lies at a multiple of its element's
size, which readers that map the file rely on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from resilient.codec.tensors import ITEM_BYTES

METADATA = "__metadata__"

# MindSpore's names of dtypes and the format's. It knows no Complex128 and no HiFloat8.
DTYPES: Mapping[str, str] = {
    "Bool": "BOOL",
    "Int8": "I8",
    "UInt8": "U8",
    "Int16": "I16",
    "UInt16": "U16",
    "Int32": "I32",
    "UInt32": "U32",
    "Int64": "I64",
    "UInt64": "U64",
    "Float16": "F16",
    "BFloat16": "BF16",
    "Float32": "F32",
    "Float64": "F64",
    "Complex64": "C64",
    "Float8E4M3FN": "F8_E4M3",
    "Float8E5M2": "F8_E5M2",
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its content."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]


def item_sizes(tensors: Sequence[TensorSpec]) -> list[int]:
    """The sizes of the elements that occur, in the order in which their tensors come in the file."""
    return sorted({tensor.item_bytes for tensor in tensors}, reverse=True)


def header(tensors: Sequence[TensorSpec], texts: Mapping[str, str]) -> bytes:
    """Everything before the data. Tensors of one element size follow each other as they are given."""
    content: dict[str, object] = {METADATA: dict(texts)} if texts else {}
    offset = 0
    for item_bytes in item_sizes(tensors):
        for tensor in (tensor for tensor in tensors if tensor.item_bytes == item_bytes):
            end = offset + tensor.size_bytes
            content[tensor.name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
    encoded = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded
