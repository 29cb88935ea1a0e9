"""Randomness from the operating system: nonces, run ids, seeds, jitter."""

from __future__ import annotations

import os
from typing import Protocol


class Entropy(Protocol):
    """A source of unpredictable bytes."""

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` fresh random bytes, suitable for nonces and keys."""
        ...


class SystemEntropy:
    """The kernel's generator. Safe across fork and restart, unlike a generator seeded in the process."""

    def token(self, size_bytes: int) -> bytes:
        return os.urandom(size_bytes)
