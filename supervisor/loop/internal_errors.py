"""Faults of ours inside the loop: contained where the run can do without what failed, and reported.

A handler that raises takes no other one with it: the journal gets its traceback, the person one line, and
the loop continues. ``BrokenError`` is for the rest: the machine's own transition has failed, or the same
thing has failed so often that nothing is gained by continuing. Then the supervisor saves what is in memory,
and ends (``emergency_save``).
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar, cast

from resilient.journal.events import MishapContained
from supervisor.edges.journal_writer import JournalWriter
from supervisor.telling.story import Story

MOST_IN_A_ROW = 5
"""So often the same thing may fail, one time after the other, before it is given up."""

_MOST_CHARACTERS = 4000

_Teller = TypeVar("_Teller", Story, JournalWriter)


class BrokenError(BaseException):
    """The supervisor cannot go on; the cause says why. Not an Exception: nobody on the way contains it."""


class InternalErrors:
    """Contains faults, and counts them: the 1st, the 10th, the 100th, ... of each is reported."""

    def __init__(self, journal: JournalWriter, story: Story) -> None:
        self._journal = journal
        self._story = story
        self._seen: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()

    @contextlib.contextmanager
    def contained(self, what: str, most: int | None = None) -> Iterator[None]:
        """Within it a fault ends what is within, and nothing else.

        Raises Broken when the same ``what`` has failed ``most`` times, one after the other.
        """
        try:
            yield
        except Exception as error:
            self.note(what, error)
            self._in_a_row[what] += 1
            if most is not None and self._in_a_row[what] >= most:
                raise BrokenError(f"{what} failed {most} times in a row") from error
        else:
            self._in_a_row.pop(what, None)

    def timer(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Contains what a timer of this name calls."""
        # A run can go on without being watched, and not without what the machine waits for.
        return self.contained(f"the timer {name}", MOST_IN_A_ROW if name == "machine" else None)

    def note(self, what: str, error: Exception) -> None:
        """Reports a fault that has been contained. Never raises."""
        with contextlib.suppress(Exception):
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        alike = f"{what} {type(error).__name__} {[(frame.filename, frame.lineno) for frame in place]}"
        self._seen[alike] += 1
        times = self._seen[alike]
        if str(times).rstrip("0") != "1":
            return
        # Each on its own: the one that hears of it may be the one that has failed.
        with contextlib.suppress(Exception):
            self._journal.write(MishapContained(what, times, traceback_of(error)))
        again = f" ({times} times by now)" if times > 1 else ""
        self._story.trouble(
            f"{what}: a fault of resilient-run itself{again}: {words_of(error)}; "
            "the run goes on; the journal has the traceback"
        )

    def unfailing(self, teller: _Teller) -> _Teller:
        """The same teller, whose calls never raise: a run does not end because it cannot be told of."""
        return cast(_Teller, _Unfailing(teller, self))


class _Unfailing:
    """Passes each call on, and contains what it raises."""

    def __init__(self, teller: Any, internal_errors: InternalErrors) -> None:
        self._teller = teller
        self._internal_errors = internal_errors

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._teller, name)
        if not callable(call):
            return call

        def contained(*arguments: Any, **named: Any) -> None:
            with self._internal_errors.contained(f"telling ({name})"):
                call(*arguments, **named)

        return contained


def words_of(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The end of an error's traceback, with its causes."""
    return "".join(traceback.format_exception(error))[-_MOST_CHARACTERS:]
