"""Where a training call is, as one table: state × event → next state; and what each state allows.

A state tells the truth about the live values: whether they are whole, and of which step. Our own work is no
state: it is done beside one and changes none (``recorder``). A call that has failed stays in FAILED: a step
may be left in its middle, and the script's own code runs from then on, so nothing is believed of the live
values any more. The same holds while hooks of the script run around an epoch and around the call.

Each event is the caller's word for what is happening now, so it leads to the same state from every state of a
call that is at work. Only the first boundary, the end and a failure are one-way.
"""

from __future__ import annotations

import enum


class CallState(enum.Enum):
    """Where a call is. The values are the words for it in an incident and in the journal."""

    NEW = "beginning"
    BETWEEN = "between"
    OPENING = "opening"
    WAITING = "data"
    STEP = "step"
    CALLBACKS = "callbacks"
    CLOSING = "closing"
    ENDING = "ending"
    FINISHED = "finished"
    FAILED = "failed"


class CallEvent(enum.Enum):
    """What the training tells."""

    BOUNDARY = "a step, or an epoch, is over"
    EPOCH_ENDS = "the last step of an epoch is over"
    EPOCH_OPENS = "an epoch's begin hooks run"
    EPOCH_IS_OPEN = "they have run"
    STEP_BEGINS = "a step begins"
    UPDATE_DONE = "its update is complete"
    CALL_ENDS = "the call's end hooks run"
    FINISH = "the call has returned"
    FAIL = "an exception leaves the call"


class Savable(enum.Enum):
    """What a checkpoint that is made right now may hold."""

    NOTHING = "nothing"
    HELD = "the newest boundary that is held"
    LIVE = "the live values, as the boundary"
    NEXT = "the live values, as the next boundary"


_AT_WORK = (
    CallState.BETWEEN,
    CallState.OPENING,
    CallState.WAITING,
    CallState.STEP,
    CallState.CALLBACKS,
    CallState.CLOSING,
    CallState.ENDING,
)

_LEADS_TO = {
    CallEvent.BOUNDARY: CallState.BETWEEN,
    CallEvent.EPOCH_ENDS: CallState.CLOSING,
    CallEvent.EPOCH_OPENS: CallState.OPENING,
    CallEvent.EPOCH_IS_OPEN: CallState.WAITING,
    CallEvent.STEP_BEGINS: CallState.STEP,
    CallEvent.UPDATE_DONE: CallState.CALLBACKS,
    CallEvent.CALL_ENDS: CallState.ENDING,
    CallEvent.FINISH: CallState.FINISHED,
    CallEvent.FAIL: CallState.FAILED,
}


def _next(state: CallState, event: CallEvent) -> CallState:
    if state is CallState.FAILED:
        return state
    if state is CallState.FINISHED:
        return CallState.FAILED if event is CallEvent.FAIL else state
    if state is CallState.NEW and event not in (CallEvent.BOUNDARY, CallEvent.EPOCH_ENDS, CallEvent.FAIL):
        return state
    return _LEADS_TO[event]


TABLE: dict[tuple[CallState, CallEvent], CallState] = {
    (state, event): _next(state, event) for state in CallState for event in CallEvent
}

SAVABLE: dict[CallState, Savable] = {
    CallState.NEW: Savable.NOTHING,
    CallState.BETWEEN: Savable.LIVE,
    CallState.OPENING: Savable.HELD,
    CallState.WAITING: Savable.HELD,
    CallState.STEP: Savable.HELD,
    CallState.CALLBACKS: Savable.NEXT,
    CallState.CLOSING: Savable.HELD,
    CallState.ENDING: Savable.HELD,
    CallState.FINISHED: Savable.HELD,
    CallState.FAILED: Savable.HELD,
}

SIGNALS_WAIT = frozenset({CallState.STEP, CallState.CALLBACKS})
"""Here a boundary is near that is newer than what can be saved now."""

JUDGEABLE = frozenset({CallState.BETWEEN, CallState.CLOSING, CallState.FINISHED})
"""Here the script may evaluate the newest boundary."""

LIVE_VALUES: dict[CallState, str] = {
    CallState.NEW: "what the script makes them",
    CallState.BETWEEN: "those of the newest boundary",
    CallState.OPENING: "what the epoch's begin hooks make of them",
    CallState.WAITING: "what the epoch's begin hooks have made of them",
    CallState.STEP: "half-done",
    CallState.CALLBACKS: "one complete update further",
    CallState.CLOSING: "what an evaluation and the epoch's end hooks make of them",
    CallState.ENDING: "what the call's end hooks make of them",
    CallState.FINISHED: "what the script makes of them",
    CallState.FAILED: "unknown, for good",
}


class Phases:
    """The present state of one call. ``feed`` moves it on."""

    def __init__(self) -> None:
        self.state = CallState.NEW

    def feed(self, event: CallEvent) -> Savable:
        """Something has happened; returns what could be saved until then.

        Every state knows every event: the training never ends by this table.
        """
        before, self.state = self.savable, TABLE[self.state, event]
        return before

    @property
    def is_over(self) -> bool:
        """Whether no step of this call can follow."""
        return self.state in (CallState.FINISHED, CallState.FAILED)

    @property
    def savable(self) -> Savable:
        """What a checkpoint that is made right now may hold."""
        return SAVABLE[self.state]


def diagram() -> str:
    """Both tables as Markdown, for ARCHITECTURE.md."""
    lines = [
        "| state | the live values are | a failure or a signal saves | a signal |",
        "|---|---|---|---|",
    ]
    for state in CallState:
        wait = "waits" if state in SIGNALS_WAIT else "acts at once"
        lines.append(f"| {state.name} | {LIVE_VALUES[state]} | {SAVABLE[state].value} | {wait} |")
    lines += ["", "| event | leads to | from |", "|---|---|---|"]
    for event in CallEvent:
        for target in CallState:
            origins = [state for state in CallState if TABLE[state, event] is target and state is not target]
            if origins:
                lines.append(f"| {event.value} | {target.name} | {_names(origins)} |")
    return "\n".join(lines)


def _names(states: list[CallState]) -> str:
    every = [state for state in states if state in _AT_WORK]
    if len(every) < len(_AT_WORK) - 1:
        return ", ".join(state.name for state in states)
    others = [state.name for state in states if state not in _AT_WORK]
    return ", ".join([*others, "any other of a call at work"])
