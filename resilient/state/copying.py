"""Copies of large arrays by several threads, where threads can be had.

One thread does not fill the memory's bandwidth (10 to 12 GB/s of 15 on two cores, measured). A thread may be
refused: by a limit of processes, by a container, or because the interpreter is ending (a training on a thread
of its own goes on when the main thread has returned). Then the caller copies alone, from then on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Pair = tuple[Bytes, Bytes]
"""A target and its source, of one length."""

_PIECE_BYTES = 8 * 1024 * 1024
_MOST_THREADS = 4


def copy_pairs(pairs: Sequence[Pair]) -> None:
    """Copies each source into its target; when this returns, nobody touches them any more."""
    pieces = [piece for pair in pairs for piece in _pieces(*pair)]
    if len(pieces) == len(pairs) or not _copiers().copy(pieces):
        for target, source in pieces:
            np.copyto(target, source)


def _pieces(target: Bytes, source: Bytes) -> Iterator[Pair]:
    for start in range(0, max(1, len(source)), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        yield target[start:end], source[start:end]


class _Copiers:
    """The threads, until one is refused."""

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(
            min(cores, _MOST_THREADS), thread_name_prefix="resilient-copy"
        )

    def copy(self, pieces: Sequence[Pair]) -> bool:
        """Whether they have copied all of it. If not, they have ended, and any part may be copied."""
        if self._pool is None:
            return False
        try:
            copies = [self._pool.submit(np.copyto, *piece) for piece in pieces]
        except RuntimeError:
            # No queued copy may run later: by then the source is half of another step.
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            return False
        for copy in copies:
            copy.result()
        return True


@functools.lru_cache(maxsize=1)
def _copiers() -> _Copiers:
    return _Copiers()


# A forked child has none of the threads, and would wait for them for ever.
os.register_at_fork(after_in_child=_copiers.cache_clear)
