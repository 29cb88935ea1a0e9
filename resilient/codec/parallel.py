"""Performs several tasks at once, in order, in bounded memory.

OpenSSL, hashlib and read(2) release Python's global lock, so several cores seal or open the blocks of one
file. The caller's own thread draws the tasks, in order; the threads only perform them.

Callers give each task a buffer of a ring, and rely on how far ahead tasks are drawn:

    when the caller asks for the result after result n, at most ``threads`` tasks after n have been drawn;
    then one more is drawn. So with a ring of ``threads`` + 1 buffers, no task gets the buffer of a result
    that was not yielded yet. With one buffer more, the last yielded result stays whole too.

Threads never outlive the iteration. If none can be started (a limit is reached, or the interpreter is
ending), the caller's thread does the work.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain, islice
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

# Each thread has its own buffers; more threads would need more memory than a save may take.
MOST_THREADS = 4
# Even on one core, a second thread can wait for the disk while the first one works.
_LEAST_THREADS = 2


def count_threads() -> int:
    """The number of useful threads: one for each core that this process may run on, within limits."""
    # Only Linux says which of the machine's cores are ours.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(_LEAST_THREADS, min(cores, MOST_THREADS))


def in_order(tasks: Iterable[Callable[[], T]], threads: int) -> Generator[T, None, None]:
    """The results of ``tasks`` in order, from up to ``threads`` threads; with 0 the caller's thread works.

    An error of a task is raised in its place, after the results of those before it. A single task, or none,
    starts no thread. Closing the iteration early waits for the drawn tasks: after that no thread touches a
    buffer.
    """
    drawn = iter(tasks)
    first = list(islice(drawn, 2 if threads else 0))
    drawn = chain(first, drawn)
    lanes = _Lanes[T](threads if len(first) > 1 else 0)
    try:
        # Without threads, a task is drawn only when the one before it is done.
        yield from lanes.results(drawn) if lanes.threads else (task() for task in drawn)
    finally:
        lanes.close()


class _Lanes(Generic[T]):
    """The threads of one iteration, and their tasks."""

    def __init__(self, threads: int) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], T], Future[T]] | None] = SimpleQueue()
        self._flying: deque[Future[T]] = deque()
        self.threads: list[threading.Thread] = []
        for _ in range(threads):
            # A daemon: the interpreter's end does not wait for an unfinished iteration, while a save that
            # still runs keeps its threads.
            thread = threading.Thread(target=self._work, name="resilient-codec", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            self.threads.append(thread)

    def results(self, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
        for task in tasks:
            future: Future[T] = Future()
            self._waiting.put((task, future))
            self._flying.append(future)
            if len(self._flying) > len(self.threads):
                yield self._flying.popleft().result()
        while self._flying:
            yield self._flying.popleft().result()

    def close(self) -> None:
        """Waits for the drawn tasks, whether they succeed or fail, and ends the threads."""
        for _ in self.threads:
            self._waiting.put(None)
        for thread in self.threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            _perform(*job)
            # The thread may wait long for the next task, and must not keep a buffer alive meanwhile.
            del job


def _perform(task: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(task())
    except BaseException as error:  # noqa: BLE001 - it is raised again where the result is read
        future.set_exception(error)
