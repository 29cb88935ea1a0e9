"""A file in memory, as the codec reads it."""

from __future__ import annotations


class BytesReader:
    """Reads bytes that are there already; it copies none of them beforehand."""

    def __init__(self, data):
        self.data = memoryview(data)
        self.size_bytes = len(self.data)

    def read_into(self, target, offset):
        piece = self.data[offset : offset + len(target)]
        target[: len(piece)] = piece
        return len(piece)

    def close(self):
        pass
