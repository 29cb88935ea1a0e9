"""The supervisor's life as one table: state × event → next state and what is done on the way.

It speaks of a *group* of workers, also when the group has one: an attempt starts, fails and ends as a
group. The loop feeds it one event at a time; whether a failed group is worth another attempt has been
decided before (``restart``), so the table itself holds no judgment. A run ends once nothing of it is being
saved any more.

The table has each event that can happen in a state, and no other. A stop is requested once, and whoever
repeats it by Ctrl-C insists. After it no attempt is granted, so no group fails from then on: it is over. A
group that was left to the kernel is not heard of again. Signals are heard from the first group on. An event
that a state does not know is a fault of ours, and is reported as one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """Where a run is under this supervisor."""

    NEW = "new"
    RUNNING = "running"
    WAITING = "waiting"
    LOOKING = "looking at a hung group"
    REPLACING = "ending a group for the next"
    CLEARING = "killing a group for the next"
    STOPPING = "stopping"
    KILLING = "killing"
    SAVING = "saving"
    ENDED = "ended"


class Event(enum.Enum):
    """What can happen to it."""

    BEGIN = "begin"
    GROUP_FAILED = "group failed, another attempt is granted"
    GROUP_OVER = "group over, no other attempt"
    BACKOFF_OVER = "backoff over"
    NOT_READY = "the machine is not ready for a group"
    HUNG = "the group hangs"
    TOO_LARGE = "the group needs too much memory"
    MOTIONLESS = "it still does not move"
    MOVES = "it moves again"
    HOPELESS = "waiting longer is of no use"
    LATE = "the deadline is near"
    STOP = "stop requested"
    INSIST = "stop insisted on"
    GRACE_OVER = "grace over"
    SETTLED = "nothing is being saved"


class Action(enum.Enum):
    """What the loop does on a transition.

    An action that starts a timer replaces the one before; the deadline has a timer of its own. KILL signals
    the workers. Their descendants are killed as soon as the group is over, before it is judged.
    """

    LAUNCH = "launch a group"
    WAIT = "start the backoff timer"
    FORWARD = "forward the signal, start the deadline and grace timers"
    TAKE_STACKS = "wake the group, ask it for its stacks, start a timer"
    GO_ON = "watch the group again"
    END = "ask the group to save and end, start the grace timer"
    SECURE = "have what is in memory saved"
    KILL = "kill the group's workers, start a timer"
    LOOK_AGAIN = "report that the group cannot be killed yet, start a timer"
    ABANDON = "leave the group to the kernel, judge it"
    WAIT_LONGER = "report what is missing, start a timer"
    AWAIT_SAVE = "wait for what is being saved, start a timer"
    FINISH = "report and record the end"


@dataclass(frozen=True)
class Transition:
    """The next state, and what is done on the way to it, in order."""

    state: State
    actions: tuple[Action, ...] = ()


_OVER = Transition(State.SAVING, (Action.AWAIT_SAVE,))
_END = Transition(State.ENDED, (Action.FINISH,))
_KILL = Transition(State.KILLING, (Action.KILL,))
_NEXT = Transition(State.WAITING, (Action.WAIT,))
_STOP = Transition(State.STOPPING, (Action.FORWARD,))
_ABANDON = Transition(State.SAVING, (Action.ABANDON, Action.AWAIT_SAVE))

TABLE: dict[tuple[State, Event], Transition] = {
    (State.NEW, Event.BEGIN): Transition(State.RUNNING, (Action.LAUNCH,)),
    # A group at work.
    (State.RUNNING, Event.GROUP_FAILED): _NEXT,
    (State.RUNNING, Event.GROUP_OVER): _OVER,
    (State.RUNNING, Event.HUNG): Transition(State.LOOKING, (Action.TAKE_STACKS,)),
    (State.RUNNING, Event.TOO_LARGE): Transition(State.REPLACING, (Action.END,)),
    (State.RUNNING, Event.STOP): _STOP,
    # Between two groups.
    (State.WAITING, Event.BACKOFF_OVER): Transition(State.RUNNING, (Action.LAUNCH,)),
    (State.WAITING, Event.NOT_READY): Transition(State.WAITING, (Action.WAIT_LONGER,)),
    (State.WAITING, Event.HOPELESS): _OVER,
    (State.WAITING, Event.STOP): _OVER,
    # A group that we end, so that the next one can take its place.
    (State.LOOKING, Event.MOTIONLESS): Transition(State.REPLACING, (Action.END,)),
    (State.LOOKING, Event.MOVES): Transition(State.RUNNING, (Action.GO_ON,)),
    (State.LOOKING, Event.GROUP_FAILED): _NEXT,
    (State.LOOKING, Event.GROUP_OVER): _OVER,
    (State.LOOKING, Event.STOP): _STOP,
    (State.REPLACING, Event.GROUP_FAILED): _NEXT,
    (State.REPLACING, Event.GROUP_OVER): _OVER,
    (State.REPLACING, Event.GRACE_OVER): Transition(State.CLEARING, (Action.KILL,)),
    (State.REPLACING, Event.STOP): _STOP,
    (State.CLEARING, Event.GROUP_FAILED): _NEXT,
    (State.CLEARING, Event.GROUP_OVER): _OVER,
    (State.CLEARING, Event.GRACE_OVER): Transition(State.CLEARING, (Action.LOOK_AGAIN,)),
    (State.CLEARING, Event.HOPELESS): _ABANDON,
    (State.CLEARING, Event.STOP): _KILL,
    # A group that is to end with the run.
    (State.STOPPING, Event.GROUP_OVER): _OVER,
    (State.STOPPING, Event.LATE): Transition(State.STOPPING, (Action.SECURE,)),
    (State.STOPPING, Event.GRACE_OVER): _KILL,
    (State.STOPPING, Event.INSIST): _KILL,
    (State.KILLING, Event.GROUP_OVER): _OVER,
    (State.KILLING, Event.GRACE_OVER): _ABANDON,
    (State.KILLING, Event.INSIST): Transition(State.KILLING),
    # No group is left, but for one that the kernel holds.
    (State.SAVING, Event.SETTLED): _END,
    (State.SAVING, Event.GRACE_OVER): _END,
    (State.SAVING, Event.STOP): _OVER,
    (State.SAVING, Event.INSIST): _END,
    (State.ENDED, Event.STOP): Transition(State.ENDED),
    (State.ENDED, Event.INSIST): Transition(State.ENDED),
}


class IllegalEventError(Exception):
    """An event that the present state does not know."""


class Machine:
    """The present state. ``feed`` moves it on and says what is to be done."""

    def __init__(self) -> None:
        self.state = State.NEW

    def feed(self, event: Event) -> tuple[Action, ...]:
        """The actions of this event, in order. Raises IllegalEventError outside of the table."""
        transition = TABLE.get((self.state, event))
        if transition is None:
            raise IllegalEventError(f"{event.name} in state {self.state.name}")
        self.state = transition.state
        return transition.actions


def diagram() -> str:
    """The table as Markdown, for ARCHITECTURE.md."""
    lines = ["| state | event | next state | actions |", "|---|---|---|---|"]
    for (state, event), transition in TABLE.items():
        actions = ", ".join(action.value for action in transition.actions) or "nothing"
        lines.append(f"| {state.value} | {event.value} | {transition.state.value} | {actions} |")
    return "\n".join(lines)
