"""What a person sees of a run: one plain line per event, on stderr.

``pretty`` lines begin with "resilient: "; ``json`` lines are objects with the same text. ``quiet`` leaves
warnings, failures and the last line. Nobody listening any more is no reason to fail; and while a run is
supervised nothing ever waits for who listens (see ``Outlet``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from structlog.processors import EventRenamer, JSONRenderer, add_log_level
from structlog.typing import EventDict, Processor

from resilient.host.terminal import printable
from supervisor.edges import wakeup
from supervisor.edges.event_lines import EventLines
from supervisor.edges.outlet import Outlet, outlets, write_line

_STDERR = 2


def _flatten(logger: object, level: str, event: EventDict) -> EventDict:
    # It may quote names of files, and those are anybody's: none of them steers the terminal.
    event["event"] = printable(" ".join(event["event"].split("\n")))
    return event


def _plain(logger: object, level: str, event: EventDict) -> str:
    return f"resilient: {event['event']}"


_PROCESSORS: Mapping[str, Sequence[Processor]] = {
    "pretty": (_flatten, _plain),
    "json": (_flatten, add_log_level, EventRenamer("message"), JSONRenderer()),
}


class Console:
    """Writes lines for people: through our stderr's outlet if there is one, by itself otherwise.

    ``outlets`` are our stdout and stderr, or nothing.
    """

    def __init__(
        self, log_format: str = "pretty", quiet: bool = False, outlets: tuple[Outlet, Outlet] | None = None
    ) -> None:
        self._log_format = log_format
        self._lines = EventLines(*_PROCESSORS[log_format])
        self._quiet = quiet
        self._not_shown = 0
        self.outlets = outlets

    @contextlib.contextmanager
    def with_outlets(self) -> Iterator[Console]:
        """The same console, whose reader is never waited for; what still is to be read at the end is."""
        ours = outlets()
        try:
            yield Console(self._log_format, self._quiet, ours)
        finally:
            # The run is over: a signal that stops it must not take its exit status away now.
            with wakeup.deaf():
                for outlet in ours:
                    outlet.close()

    def say(self, text: str) -> None:
        """Something went as it should."""
        if not self._quiet:
            self._write("info", text)

    def warn(self, text: str) -> None:
        """Something that the person ought to know, or do something about."""
        self._write("warning", text)

    def end(self, text: str) -> None:
        """The last line of a run that went well; shown whatever the person wants to see."""
        self._write("info", text)

    def _write(self, level: str, text: str) -> None:
        # Past Python's buffer: the worker's output goes to the same terminal, in its order.
        line = self._line(level, text)
        if self.outlets is None:
            write_line(_STDERR, line)
            return
        if self._not_shown:
            noun = "line was" if self._not_shown == 1 else "lines were"
            note = f"{self._not_shown} {noun} not shown: nobody read them; see journal.jsonl and the logs"
            line = self._line("warning", note) + line
        self._not_shown = 0 if self.outlets[1].offer(line) else self._not_shown + 1

    def _line(self, level: str, text: str) -> bytes:
        return self._lines.line(level, text, {}).encode("utf-8", "replace") + b"\n"
