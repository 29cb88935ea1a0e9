"""Shared memory that outlives its process, and a process that dies in the middle of a write.

The bytes stay when the process dies, exactly as far as it had written them, as those of a memfd do that
somebody else holds as well. Writes become visible in the order in which they were made, front to back, one
byte at a time; a death is possible before each byte. The tensors are copied through ``write`` too, so that
every byte of a snapshot is counted: ``view`` gives memory to read.
"""

from __future__ import annotations

from chaos.faults import Killed


class SimulatedMemory:
    """The Memory protocol over bytes that a test holds on to.

    ``dies_after`` is how many bytes the process still writes before it is gone; None for as many as it
    likes. ``written`` counts them.
    """

    def __init__(self, content: bytearray, dies_after: int | None = None) -> None:
        self.content = content
        self.written = 0
        self._dies_after = dies_after
        self._dead = False

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def restart(self, dies_after: int | None = None) -> SimulatedMemory:
        """The same bytes, as another process sees them."""
        return SimulatedMemory(self.content, dies_after)

    def dies_after(self, size_bytes: int | None) -> None:
        """From now on the process has so many bytes left to write."""
        self._dies_after = None if size_bytes is None else self.written + size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        return bytes(self.content[offset : offset + size_bytes])

    def write(self, offset: int, data: bytes) -> None:
        assert not self._dead, "a dead process writes nothing"
        assert 0 <= offset <= offset + len(data) <= len(self.content), "a write beyond the memory"
        left = len(data) if self._dies_after is None else self._dies_after - self.written
        done = data[:left]
        self.content[offset : offset + len(done)] = done
        self.written += len(done)
        if len(done) < len(data):
            self._dead = True
            raise Killed

    def view(self, offset: int, size_bytes: int) -> memoryview:
        return memoryview(self.content)[offset : offset + size_bytes].toreadonly()

    def close(self) -> None:
        """The bytes stay: the test holds them."""
