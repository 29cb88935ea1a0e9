"""Randomness that repeats: the same seed gives the same bytes, in the same order, on every machine."""

from __future__ import annotations

import hashlib


class SeededEntropy:
    """An Entropy for tests: SHA-256 in counter mode. Never fit for real keys."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._count = 0

    def token(self, size_bytes: int) -> bytes:
        blocks = b"".join(self._next() for _ in range(0, size_bytes, 32))
        return blocks[:size_bytes]

    def _next(self) -> bytes:
        self._count += 1
        return hashlib.sha256(f"{self._seed}/{self._count}".encode()).digest()
