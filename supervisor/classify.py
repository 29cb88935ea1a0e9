"""Why an attempt ended: a pure judgment over what was seen of it.

Values in, one ``Incident`` out. What the worker said before it ended counts more than how it ended: an exit
status of 1 says little, the exception that the worker told about says all.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resilient.errors import EXIT_UNUSABLE, EXIT_USAGE

FINISHED = "finished"
LEFT_EARLY = "left early"
EXCEPTION = "exception"
EXITED = "exited"
KILLED = "killed"
STOPPED = "stopped"
SPAWN_FAILED = "spawn failed"
UNUSABLE = "checkpoints unusable"
MISMATCH = "checkpoints do not fit"
USAGE = "usage"

# Trying again changes nothing about these.
FINAL = frozenset({UNUSABLE, MISMATCH, USAGE})


@dataclass(frozen=True)
class Evidence:
    """What was seen of an attempt.

    ``returncode`` is subprocess's: the exit status, or minus the signal's number; None when the worker
    could not be started, and ``error`` then says why. ``told`` holds the worker's last message of each
    type. ``sent`` are the signals that we sent it. ``progressed`` tells whether it completed a step.
    """

    returncode: int | None
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sent: frozenset[int] = frozenset()
    progressed: bool = False
    error: str = ""


@dataclass(frozen=True)
class Incident:
    """Why an attempt ended.

    ``status`` is the exit status that the run ends with if it ends here. ``cause`` is for people; two
    incidents with the same ``fingerprint`` failed in the same way.
    """

    kind: str
    cause: str
    status: int
    at_start: bool = False
    hint: str = ""

    @property
    def fingerprint(self) -> tuple[str, str, int]:
        return self.kind, self.cause, self.status


def classify(evidence: Evidence) -> Incident:
    """The incident that explains this evidence."""
    told = evidence.told
    if evidence.returncode is None:
        return Incident(SPAWN_FAILED, f"the worker could not be started: {evidence.error}", 126, True)
    for kind, message, status in _REFUSALS:
        if message in told:
            return Incident(kind, str(told[message].get("error")), status, True, _hint(told[message]))
    if evidence.returncode == 0:
        return _clean_exit(told)
    return _failure(evidence, told)


_REFUSALS = (
    (UNUSABLE, "unusable", EXIT_UNUSABLE),
    (MISMATCH, "mismatch", EXIT_UNUSABLE),
    (USAGE, "usage", EXIT_USAGE),
)


def _hint(message: Mapping[str, Any]) -> str:
    return str(message.get("hint") or "")


def _clean_exit(told: Mapping[str, Mapping[str, Any]]) -> Incident:
    finished = told.get("finished")
    # A command that does not speak to us (--no-python) is over when it says so by its status.
    if "hello" not in told or (finished is not None and finished.get("complete")):
        return Incident(FINISHED, "finished", 0)
    left = "the worker left with status 0 before the training was complete"
    return Incident(LEFT_EARLY, left, 1, at_start="progress" not in told)


def _failure(evidence: Evidence, told: Mapping[str, Mapping[str, Any]]) -> Incident:
    code = evidence.returncode
    assert code is not None
    at_start = not evidence.progressed
    status = code if code > 0 else 128 - code
    if code < 0:
        name = _signal_name(-code)
        if -code in evidence.sent:
            return Incident(STOPPED, f"stopped by {name}", status, at_start)
        return Incident(KILLED, f"killed by {name}", status, at_start)
    incident = told.get("incident")
    if incident is not None and incident.get("kind") == EXCEPTION:
        first_line = str(incident.get("message", "")).strip().splitlines()[:1]
        what = ": ".join([str(incident.get("exception")), *first_line])
        return Incident(EXCEPTION, what, status, at_start)
    return Incident(EXITED, f"exited with status {code}", status, at_start)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def death_reason(incident: Incident) -> str:
    """One word for why a checkpoint was made of what a dead worker has left in memory."""
    return _DEATHS.get(incident.status, "exit")


_DEATHS = {
    128 + signal.SIGKILL: "killed",
    128 + signal.SIGSEGV: "segfault",
    128 + signal.SIGBUS: "segfault",
    128 + signal.SIGABRT: "abort",
}
