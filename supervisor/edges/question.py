"""A question to the kernel that it may never answer: asked on a thread, so that nobody waits for ever.

A disk that is dead holds whoever looks at it, and so does a process that is in the middle of a mapping.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Question(Generic[Answer]):
    """``ask`` is called once, elsewhere; what it gives is the ``answer``. It tells of errors in its answer.

    A thread without an answer does not keep us from ending. Where no thread can be had, for want of memory or
    of processes, the question is ``lost``.
    """

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._answered = threading.Event()
        self._answer: list[Answer] = []
        self.lost = True
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._ask, args=(ask,), daemon=True).start()
            self.lost = False

    def _ask(self, ask: Callable[[], Answer]) -> None:
        self._answer.append(ask())
        self._answered.set()

    def wait(self, patience_s: float) -> None:
        """Gives it time to be answered."""
        if not self.lost:
            self._answered.wait(patience_s)

    @property
    def is_answered(self) -> bool:
        return self._answered.is_set()

    @property
    def answer(self) -> Answer:
        """What was answered."""
        return self._answer[0]
