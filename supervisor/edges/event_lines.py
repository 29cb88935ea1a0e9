"""Events become lines, for the journal and the console: structlog's processors, the last of which renders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import Processor


class EventLines(structlog.BoundLoggerBase):
    """A logger of structlog's that returns each line to its caller, who knows how to write it."""

    def __init__(self, *processors: Processor) -> None:
        super().__init__(None, processors, {})

    def line(self, level: str, event: str, fields: Mapping[str, Any]) -> str:
        """One event as a line, without its end."""
        (line,), _ = self._process_event(level, event, dict(fields))
        assert isinstance(line, str)
        return line
