"""The epochs that a script asks of each of its training calls, and calls that were finished with fewer.

A finished call is not made again. Where the script asks for more epochs of it than it had (``--extend``), the
newest call resumes at its end, as an uninterrupted call of that many epochs would have done. An earlier one
cannot: the newest state is that of a later call. One that ended by itself, before its epochs were over (early
stopping, a ``break``), would have ended there with more epochs too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from resilient.state.snapshot import Progress


class Epochs:
    """How many epochs are asked of each call: ``asked`` goes into each state, by the call's ordinal.

    ``extends`` tells that a finished call may go on; ``tell`` hears of one that does not although it is asked
    for more.
    """

    def __init__(self, *, extends: bool = False, tell: Callable[[str], None] = lambda text: None) -> None:
        self._extends = extends
        self._tell = tell
        self._before: list[int] = []
        self.asked: list[int] = []

    def resume(self, document: Mapping[str, Any]) -> None:
        """From now on the state is one with this document."""
        self._before = list(document.get("epochs", []))
        self.asked[:] = self._before[: len(self.asked)]

    def begin(self, call: int, asked: int) -> None:
        """A call begins, or goes on, that is asked for so many epochs."""
        del self.asked[call:]
        self.asked.extend([0] * (call - len(self.asked)))
        self.asked.append(asked)

    def extends(self, end: Progress, call: int, asked: int) -> bool:
        """Whether a call that is over in the state ``end`` goes on, with the epochs that it has grown by."""
        before = self._before[call] if call < len(self._before) else None
        is_newest = end.call == call
        trained = before if before is not None else -(-end.call_step // end.steps_per_epoch)
        grown = (is_newest or before is not None) and asked > trained
        if grown and is_newest and self._extends and not _is_cut_short(end, before):
            return True
        if grown:
            self._tell(_refusal(call, trained, asked, end))
        self.begin(call, trained if is_newest or before is not None else asked)
        return False


def _is_cut_short(end: Progress, epochs: int | None) -> bool:
    return epochs is not None and end.call_step < epochs * end.steps_per_epoch


def _refusal(call: int, before: int, asked: int, end: Progress) -> str:
    which = (
        f"training call {call + 1} was finished with {before} epochs, and the script asks for {asked} now: "
    )
    if end.call != call:
        return which + "it stays as it is, because the newest state is that of a later call"
    if _is_cut_short(end, before):
        return which + "it stays as it is, because it ended by itself before its epochs were over"
    return which + "to train the others too, run the same command with --extend"
