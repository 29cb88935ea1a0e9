"""A progress bar on stderr: only on a terminal, and only for what takes longer than two seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from resilient.host.clock import Clock
from resilient.host.files import Buffer, FileReader, Files, FileWriter
from resilient.sizes import size

_PATIENCE_S = 2.0
_REFRESH_S = 0.2
_BAR_WIDTH = 24


class ProgressBar:
    """How much of a number of bytes is done. A context manager; ``clear`` before a line is printed."""

    def __init__(self, what: str, total_bytes: int, clock: Clock, stream: TextIO | None = None) -> None:
        self._what = what
        self._total_bytes = max(total_bytes, 1)
        self._clock = clock
        self._stream = stream or sys.stderr
        self._shows = self._stream.isatty()
        self._done_bytes = 0
        self._began_s = clock.monotonic()
        self._drawn_s = self._began_s + _PATIENCE_S - _REFRESH_S
        self._visible = False

    def advance(self, size_bytes: int) -> None:
        """So many more bytes are done."""
        self._done_bytes += size_bytes
        if not self._shows:
            return
        now_s = self._clock.monotonic()
        if now_s - self._drawn_s >= _REFRESH_S:
            self._drawn_s = now_s
            self._draw(now_s - self._began_s)

    def _draw(self, seconds: float) -> None:
        part = min(self._done_bytes / self._total_bytes, 1.0)
        bar = "#" * round(part * _BAR_WIDTH)
        speed = size(self._done_bytes / max(seconds, 1e-3))
        text = f"{self._what} [{bar:<{_BAR_WIDTH}}] {part:4.0%} of {size(self._total_bytes)}, {speed}/s"
        self._write(f"\r{text[: self._columns() - 1]}\x1b[K")
        self._visible = True

    def clear(self) -> None:
        """Takes the bar away until it is drawn again."""
        if self._visible:
            self._visible = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._shows = False

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


class _CountedFiles:
    """Files whose data files tell how much of them is read and written; all else is as it was."""

    def __init__(self, files: Files, advance: Callable[[int], None]) -> None:
        self._files = files
        self._advance = advance

    def open(self, path: Path) -> FileReader:
        return _CountedReader(self._files.open(path), self._advance)

    def create(self, path: Path) -> FileWriter:
        return _CountedWriter(self._files.create(path), self._advance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


def watched(files: Files, progress: ProgressBar) -> Files:
    """The same files; what is read and written of them counts as progress."""
    return cast(Files, _CountedFiles(files, progress.advance))


class _CountedReader:
    def __init__(self, reader: FileReader, advance: Callable[[int], None]) -> None:
        self._reader = reader
        self._advance = advance
        self.size_bytes = reader.size_bytes

    def read_into(self, target: memoryview, offset: int) -> int:
        done = self._reader.read_into(target, offset)
        self._advance(done)
        return done

    def close(self) -> None:
        self._reader.close()


class _CountedWriter:
    def __init__(self, writer: FileWriter, advance: Callable[[int], None]) -> None:
        self._writer = writer
        self._advance = advance

    def write(self, data: Buffer) -> None:
        self._writer.write(data)
        self._advance(len(data))

    def sync(self) -> None:
        self._writer.sync()

    def close(self) -> None:
        self._writer.close()
