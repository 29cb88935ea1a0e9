"""Shared memory, mapped without its own descriptor.

``mmap.mmap`` keeps a duplicate of the descriptor under a low number and closes that number in the end. If the
script has closed the number and opened its own file under it, that would close the script's file. A mapping
needs no descriptor.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_MADV_DONTDUMP = 16
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_shared(descriptor: int, size_bytes: int) -> memoryview:
    """Maps the memory of a descriptor, which the caller may close then. It lives as long as any view of it.

    Raises OSError, and ValueError when the memory is shorter than ``size_bytes``.
    """
    if os.fstat(descriptor).st_size < size_bytes:
        # A process that touches memory behind the end dies of SIGBUS.
        raise ValueError(f"the memory is shorter than {size_bytes} bytes")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, size_bytes, protection, mmap.MAP_SHARED, descriptor, 0)
    if address is None or address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # Otherwise a core dump of the training would hold the whole state again for each slot of the mirror.
    libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), _MADV_DONTDUMP)
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    # Not unmapped at the interpreter's end: a thread may still be copying.
    weakref.finalize(memory, _unmap, address, size_bytes).atexit = False
    return memoryview(memory).cast("B")


def _unmap(address: int, size_bytes: int) -> None:
    ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes))
