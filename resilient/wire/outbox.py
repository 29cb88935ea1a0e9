"""What this process tells the supervisor: in order, and never waited for longer than a moment.

A supervisor that is frozen (SIGSTOP, a suspended shell) does not read, and one day the link is full. The
training must not stand still for that, least of all when it is about to fail: the outbox keeps what it cannot
send, and sends it as soon as it can.
"""

from __future__ import annotations

import threading
from collections import deque

from resilient.errors import LinkError, StalledError
from resilient.wire.link import Link
from resilient.wire.messages import Message, Warned

PATIENCE_S = 10.0
"""For a supervisor that lives and does not read."""

_MOST_WAITING = 1000


class Outbox:
    """Sends messages over a link, from any thread, and from a signal's handler."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # A handler may come in the middle of a send of the same thread.
        self._lock = threading.RLock()
        self._waiting: deque[Message] = deque()
        self._left_out = 0
        self._is_stalled = False

    def tell(self, message: Message) -> None:
        """Sends a message, behind those that wait. Never raises for what the other side does.

        It waits for a supervisor that does not read, but not once more for one that has not read the last
        time.
        """
        with self._lock:
            self._waiting.append(message)
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()
                self._left_out += 1
            self._flush(0.0 if self._is_stalled else PATIENCE_S)

    def flush(self) -> None:
        """The last chance of what waits: this process is about to end."""
        with self._lock:
            self._flush(PATIENCE_S)

    def _flush(self, patience_s: float) -> None:
        try:
            while self._waiting:
                # Taken out first: a handler that comes meanwhile sends what is behind it, and not the same.
                message = self._waiting.popleft()
                try:
                    self._link.send(message, patience_s=patience_s)
                except StalledError:
                    self._waiting.appendleft(message)
                    raise
            self._is_stalled = False
            self._own_up()
        except StalledError:
            self._is_stalled = True
        except LinkError:
            # Nobody is there who could hear of it.
            self._waiting.clear()

    def _own_up(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            text = f"the supervisor did not listen for a while: {count} messages to it were left out"
            self.tell(Warned(text))
