"""Memory that several processes share, and that outlives each of them but the last: the bytes of a mirror."""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import Protocol

from resilient.errors import MirrorError
from resilient.host.mapping import map_shared

PAGE_BYTES = 4096

_MADV_POPULATE_WRITE = 23  # Linux 5.14


class Memory(Protocol):
    """The bytes of a mirror."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, size_bytes: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None:
        """Writes front to back."""
        ...

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """The memory itself, for tensors."""
        ...

    def close(self) -> None:
        """Lets go of it, as far as others are concerned: it can still be read."""
        ...


class SharedMemory:
    """A mapped memfd. ``descriptor`` is its own, and closed with it.

    Raises MirrorError or OSError for a descriptor that cannot be mapped; then it stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size
        if self.size_bytes < PAGE_BYTES:
            raise MirrorError(f"a memory of {self.size_bytes} bytes is no mirror")
        self._view = map_shared(descriptor, self.size_bytes)

    @classmethod
    def create(cls, size_bytes: int) -> SharedMemory:
        """New memory, all zeros. Raises OSError."""
        descriptor = os.memfd_create("resilient-mirror", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size_bytes)
            # Whoever has it mapped would die of SIGBUS, were it cut off.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, offset: int, size_bytes: int) -> bytes:
        return bytes(self._view[offset : offset + size_bytes])

    def write(self, offset: int, data: bytes) -> None:
        self._view[offset : offset + len(data)] = data

    def view(self, offset: int, size_bytes: int) -> memoryview:
        return self._view[offset : offset + size_bytes]

    def fetch_pages(self, offset: int, size_bytes: int) -> None:
        """Has the kernel find and clear this part of the memory now, where it knows how to.

        A page that is written for the first time costs ten times as much as one that is there. This changes
        no byte; others may be writing meanwhile.
        """
        start = offset // PAGE_BYTES * PAGE_BYTES
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._view)) + start
        # Not mmap.madvise: it would hold up every other thread of the interpreter.
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(address), ctypes.c_size_t(offset - start + size_bytes), _MADV_POPULATE_WRITE
        )

    def close(self) -> None:
        """Lets go of the descriptor.

        The mapping needs none. It goes with this object and the last view of it: somebody may still read what
        it holds.
        """
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
