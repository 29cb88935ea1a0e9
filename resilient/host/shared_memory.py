"""Memory that several processes share and that lives as long as any of them: the bytes of a mirror."""

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
        """Closes the descriptor; the memory can still be read."""
        ...


class SharedMemory:
    """A mapped memfd. It owns ``descriptor`` and closes it.

    Raises MirrorError or OSError when the descriptor cannot be mapped; then the caller keeps it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size
        if self.size_bytes < PAGE_BYTES:
            raise MirrorError(f"a memory of {self.size_bytes} bytes is too small for a mirror")
        self._view = map_shared(descriptor, self.size_bytes)

    @classmethod
    def create(cls, size_bytes: int) -> SharedMemory:
        """New memory, all zeros. Raises OSError."""
        descriptor = os.memfd_create("resilient-mirror", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size_bytes)
            # If somebody shrank it, processes that have it mapped would die of SIGBUS.
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
        """Makes the kernel allocate this part of the memory now, if it can.

        The first write to a page costs ten times as much as later ones. This changes no byte; others may
        write meanwhile.
        """
        start = offset // PAGE_BYTES * PAGE_BYTES
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._view)) + start
        # Not mmap.madvise: it would block every other thread of the interpreter.
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(address), ctypes.c_size_t(offset - start + size_bytes), _MADV_POPULATE_WRITE
        )

    def close(self) -> None:
        """Closes the descriptor.

        The mapping does not need it, and lives as long as this object or any view of it: somebody may still
        read the content.
        """
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
