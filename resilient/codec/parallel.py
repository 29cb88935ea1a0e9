"""Several pieces of work at once, in order, in bounded memory.

OpenSSL, hashlib and read(2) let go of Python's lock, so the blocks of one file are sealed or opened on
several cores. The caller's own thread draws the tasks, in order; the threads only perform them.

How far ahead tasks are drawn is what the users of this module build on, who give each task a buffer of a
ring:

    when result n has been given out and the next one is asked for, at most ``threads`` later tasks have been
    drawn; then one more is drawn. So a ring of ``threads`` + 1 buffers never gives a task the buffer of one
    that has not been given out yet, and with one buffer more the result given out last stays whole as well.

Threads live as long as the iteration, never longer. Where none can be had (a limit is reached, or the
interpreter is ending) the caller's thread does the work: nothing fails for want of a thread.
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

# More would need more memory than a save may take: each has buffers of its own.
MOST_THREADS = 4
# With one core a second thread still waits for the disk while the first one works.
_LEAST_THREADS = 2


def count_threads() -> int:
    """How many threads are worth having: one for each core that this process may run on, within limits."""
    # Only Linux tells which of the machine's cores are ours.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(_LEAST_THREADS, min(cores, MOST_THREADS))


def in_order(tasks: Iterable[Callable[[], T]], threads: int) -> Generator[T, None, None]:
    """The results of ``tasks``, in their order, from up to ``threads`` threads; 0 is the caller's alone.

    An error of a task is raised in its place, after the results of those before it. A single task, or none,
    starts no thread. Closing the iteration early waits for what was drawn: after that nobody touches a buffer
    any more.
    """
    drawn = iter(tasks)
    first = list(islice(drawn, 2 if threads else 0))
    drawn = chain(first, drawn)
    lanes = _Lanes[T](threads if len(first) > 1 else 0)
    try:
        # Without any thread a task is drawn only when the one before it is done.
        yield from lanes.results(drawn) if lanes.threads else (task() for task in drawn)
    finally:
        lanes.close()


class _Lanes(Generic[T]):
    """The threads of one iteration, and what they are to do."""

    def __init__(self, threads: int) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], T], Future[T]] | None] = SimpleQueue()
        self._flying: deque[Future[T]] = deque()
        self.threads: list[threading.Thread] = []
        for _ in range(threads):
            # A daemon: at the end of the interpreter nobody waits for an iteration that was never finished,
            # while a save that is still going on keeps its threads.
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
        """Waits for the few tasks that were drawn, whatever becomes of them, and ends the threads."""
        for _ in self.threads:
            self._waiting.put(None)
        for thread in self.threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            _perform(*job)
            # The thread may wait for long, and must not keep a buffer alive meanwhile.
            del job


def _perform(task: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(task())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the result is asked for
        future.set_exception(error)
