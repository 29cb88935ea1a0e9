"""Writes in the background: while a block goes to the kernel, the caller prepares the next one.

At most one write is in flight. The next call raises its error; no block is ever reported as written or synced
that was not. Python releases its global lock in write(2) and in OpenSSL, so two cores are busy.

Each write starts writeback at once (sync_file_range(2)), so that little is left for the fsync at the end.
That is only a hint: fsync alone makes the bytes durable.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import Future, ThreadPoolExecutor

# Below this a thread costs more than it saves.
LEAST_BYTES = 1024 * 1024
_SYNC_FILE_RANGE_WRITE = 2


class WriteBehind:
    """The writes to one descriptor, in order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0
        self._thread: ThreadPoolExecutor | None = None
        self._flying: Future[None] | None = None
        self._alone = False

    def write(self, view: memoryview) -> None:
        """Writes all of ``view``, which must not change before the next call returns. Raises OSError."""
        self.settle()
        if self._alone or len(view) < LEAST_BYTES:
            self._write(view)
            return
        try:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="resilient-writer")
            self._flying = self._thread.submit(self._write, view)
        except RuntimeError:
            # No more threads: the interpreter is ending, or a limit is reached. A save must not fail because
            # of that, and a block queued for a thread that never began must not be written twice.
            self._alone = True
            self.close()
            self._write(view)

    def settle(self) -> None:
        """Waits until the kernel has everything. Raises the OSError of a write that failed."""
        flying, self._flying = self._flying, None
        if flying is not None:
            flying.result()

    def close(self) -> None:
        """Waits for the write in flight, whether it succeeds or fails, and ends the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=self._alone)
            self._thread = None

    def _write(self, view: memoryview) -> None:
        start = self._offset
        while view:
            # write(2) may write less than requested, on a full disk or after 2 GiB.
            count = os.write(self._descriptor, view)
            self._offset += count
            view = view[count:]
        if self._offset - start >= LEAST_BYTES:
            _begin_writeback(self._descriptor, start, self._offset - start)


def _begin_writeback(descriptor: int, start: int, size_bytes: int) -> None:
    sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if sync_file_range is not None:
        range_ = ctypes.c_int64(start), ctypes.c_int64(size_bytes)
        sync_file_range(ctypes.c_int(descriptor), *range_, ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))
