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


class SupervisorState(enum.Enum):
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


class SupervisorEvent(enum.Enum):
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


class SupervisorAction(enum.Enum):
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

    state: SupervisorState
    actions: tuple[SupervisorAction, ...] = ()


_OVER = Transition(SupervisorState.SAVING, (SupervisorAction.AWAIT_SAVE,))
_END = Transition(SupervisorState.ENDED, (SupervisorAction.FINISH,))
_KILL = Transition(SupervisorState.KILLING, (SupervisorAction.KILL,))
_NEXT = Transition(SupervisorState.WAITING, (SupervisorAction.WAIT,))
_STOP = Transition(SupervisorState.STOPPING, (SupervisorAction.FORWARD,))
_ABANDON = Transition(SupervisorState.SAVING, (SupervisorAction.ABANDON, SupervisorAction.AWAIT_SAVE))

TABLE: dict[tuple[SupervisorState, SupervisorEvent], Transition] = {
    (SupervisorState.NEW, SupervisorEvent.BEGIN): Transition(
        SupervisorState.RUNNING, (SupervisorAction.LAUNCH,)
    ),
    # A group at work.
    (SupervisorState.RUNNING, SupervisorEvent.GROUP_FAILED): _NEXT,
    (SupervisorState.RUNNING, SupervisorEvent.GROUP_OVER): _OVER,
    (SupervisorState.RUNNING, SupervisorEvent.HUNG): Transition(
        SupervisorState.LOOKING, (SupervisorAction.TAKE_STACKS,)
    ),
    (SupervisorState.RUNNING, SupervisorEvent.TOO_LARGE): Transition(
        SupervisorState.REPLACING, (SupervisorAction.END,)
    ),
    (SupervisorState.RUNNING, SupervisorEvent.STOP): _STOP,
    # Between two groups.
    (SupervisorState.WAITING, SupervisorEvent.BACKOFF_OVER): Transition(
        SupervisorState.RUNNING, (SupervisorAction.LAUNCH,)
    ),
    (SupervisorState.WAITING, SupervisorEvent.NOT_READY): Transition(
        SupervisorState.WAITING, (SupervisorAction.WAIT_LONGER,)
    ),
    (SupervisorState.WAITING, SupervisorEvent.HOPELESS): _OVER,
    (SupervisorState.WAITING, SupervisorEvent.STOP): _OVER,
    # A group that we end, so that the next one can take its place.
    (SupervisorState.LOOKING, SupervisorEvent.MOTIONLESS): Transition(
        SupervisorState.REPLACING, (SupervisorAction.END,)
    ),
    (SupervisorState.LOOKING, SupervisorEvent.MOVES): Transition(
        SupervisorState.RUNNING, (SupervisorAction.GO_ON,)
    ),
    (SupervisorState.LOOKING, SupervisorEvent.GROUP_FAILED): _NEXT,
    (SupervisorState.LOOKING, SupervisorEvent.GROUP_OVER): _OVER,
    (SupervisorState.LOOKING, SupervisorEvent.STOP): _STOP,
    (SupervisorState.REPLACING, SupervisorEvent.GROUP_FAILED): _NEXT,
    (SupervisorState.REPLACING, SupervisorEvent.GROUP_OVER): _OVER,
    (SupervisorState.REPLACING, SupervisorEvent.GRACE_OVER): Transition(
        SupervisorState.CLEARING, (SupervisorAction.KILL,)
    ),
    (SupervisorState.REPLACING, SupervisorEvent.STOP): _STOP,
    (SupervisorState.CLEARING, SupervisorEvent.GROUP_FAILED): _NEXT,
    (SupervisorState.CLEARING, SupervisorEvent.GROUP_OVER): _OVER,
    (SupervisorState.CLEARING, SupervisorEvent.GRACE_OVER): Transition(
        SupervisorState.CLEARING, (SupervisorAction.LOOK_AGAIN,)
    ),
    (SupervisorState.CLEARING, SupervisorEvent.HOPELESS): _ABANDON,
    (SupervisorState.CLEARING, SupervisorEvent.STOP): _KILL,
    # A group that is to end with the run.
    (SupervisorState.STOPPING, SupervisorEvent.GROUP_OVER): _OVER,
    (SupervisorState.STOPPING, SupervisorEvent.LATE): Transition(
        SupervisorState.STOPPING, (SupervisorAction.SECURE,)
    ),
    (SupervisorState.STOPPING, SupervisorEvent.GRACE_OVER): _KILL,
    (SupervisorState.STOPPING, SupervisorEvent.INSIST): _KILL,
    (SupervisorState.KILLING, SupervisorEvent.GROUP_OVER): _OVER,
    (SupervisorState.KILLING, SupervisorEvent.GRACE_OVER): _ABANDON,
    (SupervisorState.KILLING, SupervisorEvent.INSIST): Transition(SupervisorState.KILLING),
    # No group is left, but for one that the kernel holds.
    (SupervisorState.SAVING, SupervisorEvent.SETTLED): _END,
    (SupervisorState.SAVING, SupervisorEvent.GRACE_OVER): _END,
    (SupervisorState.SAVING, SupervisorEvent.STOP): _OVER,
    (SupervisorState.SAVING, SupervisorEvent.INSIST): _END,
    (SupervisorState.ENDED, SupervisorEvent.STOP): Transition(SupervisorState.ENDED),
    (SupervisorState.ENDED, SupervisorEvent.INSIST): Transition(SupervisorState.ENDED),
}


class IllegalEventError(Exception):
    """An event that the present state does not know."""


class Machine:
    """The present state. ``feed`` moves it on and says what is to be done."""

    def __init__(self) -> None:
        self.state = SupervisorState.NEW

    def feed(self, event: SupervisorEvent) -> tuple[SupervisorAction, ...]:
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
