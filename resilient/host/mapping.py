"""Shared memory, mapped without a descriptor of its own.

``mmap.mmap`` keeps a duplicate of the descriptor under a low number and closes that number when it goes. In a
process whose script has closed the number, and has got it for a file of its own since, that would be the
script's file. A mapping needs no descriptor.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_MADV_DONTDUMP = 16
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_shared(descriptor: int, size_bytes: int) -> memoryview:
    """The memory behind a descriptor, which may be closed then. It is there as long as somebody has a view.

    Raises OSError, and ValueError for less memory than that.
    """
    if os.fstat(descriptor).st_size < size_bytes:
        # A process that touches memory behind the end dies of SIGBUS.
        raise ValueError("the memory has not that length")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, size_bytes, protection, mmap.MAP_SHARED, descriptor, 0)
    if address is None or address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # A training's core dump would hold the whole state once more for each slot of a mirror.
    libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), _MADV_DONTDUMP)
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    # Not at the interpreter's end: a thread may still be copying.
    weakref.finalize(memory, _unmap, address, size_bytes).atexit = False
    return memoryview(memory).cast("B")


def _unmap(address: int, size_bytes: int) -> None:
    ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes))
