"""The trial ledger: which states the run has resumed from, how that went, and which it must not use again.

Resuming from a state is a trial until the first step after it is complete. It is written down, durably,
before the worker reads the state: a state that takes the machine down with it is known when the machine is
back. All decisions here are pure; ``TrialFile`` keeps the value.

* A state on which two attempts ended before a step was complete is set aside: it, and everything of its step
  or later that was made until then, is not resumed from any more. It stays on disk.
* The same failure at the same step: the first time it is tried again as it is; the second time the policy
  decides (``Poison``): an older state (or the same one, where there is no older one), the batch left out, or
  the end; the third time is the end.
* A loss that is not finite: back at once, to the newest state whose loss was finite.
* The same failure right after resuming from two different states: neither is to blame, and the run ends.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from resilient.config import Origin, Shun
from resilient.errors import StorageError
from resilient.host.world import World
from resilient.run import record_seal
from resilient.run.record_seal import Seal
from resilient.run.rundir import Keep
from resilient.store import commit
from supervisor.verdict.classify import NUMERICAL, OUTSIDE, TOO_LARGE, Incident

FORMAT = 1
KIND = "trials"
_TRIALS = 2
_HOPELESS = 3
_LIMIT_BYTES = 1024 * 1024
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""The exceptions that JSON of another shape raises: 1e999 is a number, and no whole one."""


class Poison(enum.Enum):
    """The remedies for a step that has failed twice in the same way."""

    STOP = "stop"
    ROLLBACK = "rollback"
    SKIP_BATCH = "skip-batch"


@dataclass(frozen=True)
class Trial:
    """A state that an attempt resumes from; ``failures`` counts the attempts that have ended on it."""

    step: int
    source: str
    failures: int = 0


@dataclass(frozen=True)
class TrialLedger:
    """``trial`` is the one that is open, or the last that failed; ``from_step`` the step resumed from last.

    ``repeated`` is how often the failure ``fingerprint`` has come in a row, with ``failed_step`` to blame.
    ``origin`` says which states must not be resumed from, and which steps are left out. ``unfinished``
    tells whether an attempt has left a training call in its middle, and none has come to one since.
    """

    trial: Trial | None = None
    open: bool = False
    from_step: int = 0
    fingerprint: tuple[Any, ...] = ()
    failed_step: int = -1
    repeated: int = 0
    origin: Origin = Origin()
    unfinished: bool = False


@dataclass(frozen=True)
class LedgerDecision:
    """The ledger after a failure: ``stop`` says why the run ends, ``action`` what is done instead."""

    ledger: TrialLedger
    action: str = ""
    stop: str = ""


def begin(ledger: TrialLedger, step: int, source: str) -> TrialLedger:
    """An attempt is about to resume from a state. A trial that was left open has taken us down with it."""
    trial = Trial(step, source)
    if ledger.trial is not None and ledger.trial.step == step:
        trial = replace(trial, failures=ledger.trial.failures)
    return replace(ledger, trial=trial, open=True, from_step=step)


def reopen(ledger: TrialLedger, attempt: int) -> LedgerDecision:
    """The ledger that a dead supervisor has left: an open trial counts as one that has failed."""
    if not ledger.open or ledger.trial is None:
        return LedgerDecision(ledger)
    return _close(ledger, attempt)


def good(ledger: TrialLedger) -> TrialLedger:
    """A step has been completed: the state was good."""
    return replace(ledger, trial=None, open=False) if ledger.trial is not None else ledger


def failed(ledger: TrialLedger, incident: Incident, attempt: int, poison: Poison) -> LedgerDecision:
    """An attempt has failed. What others have done to it says nothing about the state, or the step."""
    if incident.kind in OUTSIDE or incident.kind == TOO_LARGE:
        return LedgerDecision(replace(ledger, open=False))
    known = incident.fingerprint == ledger.fingerprint
    same = known and incident.culprit == ledger.failed_step
    tried = ledger.open and ledger.trial is not None
    if known and not same and tried and incident.at_start and ledger.origin.shunned:
        return LedgerDecision(ledger, stop="it fails in the same way from two different states")
    ledger = replace(
        ledger,
        fingerprint=incident.fingerprint,
        failed_step=incident.culprit,
        repeated=ledger.repeated + 1 if same else 1,
    )
    if ledger.repeated >= _HOPELESS:
        return LedgerDecision(ledger, stop=f"{_where(incident)} has failed three times in the same way")
    if incident.in_script:
        # Another state, or another batch, would come to the same place of the script.
        return LedgerDecision(replace(ledger, open=False))
    if ledger.repeated > 1 and not incident.beside_steps and (incident.step > 0 or tried):
        return _poisoned(ledger, incident, attempt, poison)
    if incident.kind == NUMERICAL:
        why = f"the loss of step {incident.culprit} was not finite"
        ledger = replace(ledger, origin=replace(ledger.origin, finite=True))
        return _roll_back(ledger, incident.step, attempt, why)
    return _close(ledger, attempt) if tried else LedgerDecision(ledger)


def nothing_older(ledger: TrialLedger) -> LedgerDecision:
    """The worker found no older state. A failure that has come twice may still be one that passes."""
    if 1 < ledger.repeated < _HOPELESS and ledger.origin.shunned:
        origin = ledger.origin.without_newest_rule()
        return LedgerDecision(
            replace(ledger, origin=origin), action="there is no older state: the same one is tried again"
        )
    return LedgerDecision(ledger, stop="there is no older state")


def _poisoned(ledger: TrialLedger, incident: Incident, attempt: int, poison: Poison) -> LedgerDecision:
    why = f"{_where(incident)} has failed twice in the same way"
    if poison is Poison.STOP:
        return LedgerDecision(ledger, stop=f"{why} (--on-poison stop)")
    if poison is Poison.SKIP_BATCH:
        origin = ledger.origin.skipping(incident.culprit)
        ledger = replace(ledger, origin=origin, trial=None, open=False)
        return LedgerDecision(ledger, action=f"{why}: its batch is left out")
    return _roll_back(ledger, min(incident.step, ledger.from_step), attempt, why)


def _where(incident: Incident) -> str:
    return f"the script after step {incident.step}" if incident.beside_steps else f"step {incident.culprit}"


def _close(ledger: TrialLedger, attempt: int) -> LedgerDecision:
    """The open trial has failed; the second time its state is set aside."""
    assert ledger.trial is not None
    trial = replace(ledger.trial, failures=ledger.trial.failures + 1)
    ledger = replace(ledger, trial=trial, open=False)
    if trial.failures < _TRIALS:
        return LedgerDecision(ledger)
    why = f"two attempts have ended on the state of step {trial.step} ({trial.source})"
    return _roll_back(ledger, trial.step, attempt, why)


def _roll_back(ledger: TrialLedger, step: int, attempt: int, why: str) -> LedgerDecision:
    """The run resumes from an older state than this step's."""
    ledger = replace(ledger, origin=ledger.origin.shunning(Shun(step, attempt)), trial=None, open=False)
    return LedgerDecision(ledger, action=f"{why}: going back to an older state")


@dataclass(frozen=True)
class LedgerOwner:
    """Whose ledger a directory should have, and who vouches for it.

    ``keys`` seal it (``run.record_seal``). ``proven`` tells that the run's record was sealed before this
    start, so its ledger was too. ``has_saved`` tells that the run has made attempts and saved: then it has a
    ledger. ``is_command`` is for a program that is no script: it leaves no training call.
    """

    run_id: str = ""
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    proven: bool = True
    has_saved: bool = False
    is_command: bool = False

    def objection(self, content: Mapping[str, Any]) -> str:
        """Why a ledger is not believed; "" where it is."""
        seal = record_seal.check(content, self.keys, KIND)
        is_legacy = seal is Seal.UNSEALED and not self.proven
        if self.keys and seal is not Seal.SEALED and not is_legacy:
            return "was not written with the run's key"
        # Earlier versions named no run, and sealed nothing.
        if content.get("run_id", "" if seal is Seal.SEALED else self.run_id) != self.run_id:
            return "is another run's"
        return ""

    @property
    def doubtful(self) -> TrialLedger:
        """Stands in for a ledger that cannot be read or is not believed: it sets no state aside, leaves no
        batch out, and lets no script count as complete."""
        return TrialLedger(unfinished=self.has_saved or not self.is_command)


class TrialFile:
    """Keeps a ledger in the run's directory. ``complain`` hears once that it cannot be written.

    ``keep`` writes it for us; None: we do, and wait for the disk.
    """

    def __init__(
        self,
        directory: Path,
        world: World,
        complain: Callable[[str], None],
        keep: Keep | None = None,
        *,
        whose: LedgerOwner = LedgerOwner(),
    ) -> None:
        self._keep = keep or self._replace
        self._path = directory / "trials.json"
        self._world = world
        self._complain = complain
        self._complained = False
        self._whose = whose

    def read(self) -> TrialLedger:
        """The ledger on disk; an empty one for a run that has none yet.

        One that is missing, makes no sense or is not believed may have known of a training left in its
        middle: somebody who removes or spoils it must not make a script count as complete.
        """
        whose = self._whose
        try:
            content = json.loads(self._world.files.read(self._path, _LIMIT_BYTES))
            if not isinstance(content, dict):
                raise ValueError("it is no JSON object")
            if against := whose.objection(content):
                self._complain(f"{self._path.name} {against}: it is not believed")
                return whose.doubtful
            return _decode(content)
        except FileNotFoundError:
            return whose.doubtful if whose.has_saved else TrialLedger()
        except (StorageError, *_NONSENSE) as error:
            self._fail(f"{self._path.name} cannot be read, and is begun anew: {error}")
            return whose.doubtful if whose.keys or whose.has_saved else TrialLedger()

    def write(self, ledger: TrialLedger) -> None:
        """Makes this what is kept, durably."""
        known = {**asdict(ledger), "origin": ledger.origin.to_json()}
        content = {"format": FORMAT, "run_id": self._whose.run_id, **known}
        content = json.loads(json.dumps(content))
        data = (json.dumps(record_seal.seal(content, self._whose.keys, KIND)) + "\n").encode()
        try:
            self._keep(self._path, data)
        except StorageError as error:
            self._fail(f"{self._path.name} cannot be written: {error}")

    def _replace(self, path: Path, data: bytes) -> None:
        commit.rewrite(self._world, path, data)

    def _fail(self, text: str) -> None:
        if not self._complained:
            self._complained = True
            self._complain(text)


def _decode_trial(content: Any) -> Trial:
    return Trial(int(content["step"]), str(content["source"]), int(content["failures"]))


def _decode(content: Any) -> TrialLedger:
    if content["format"] != FORMAT:
        raise ValueError(f"it has the format {content['format']}")
    trial = content["trial"]
    return TrialLedger(
        trial=None if trial is None else _decode_trial(trial),
        open=bool(content["open"]),
        from_step=int(content["from_step"]),
        fingerprint=tuple(content["fingerprint"]),
        failed_step=int(content["failed_step"]),
        repeated=int(content["repeated"]),
        origin=Origin.from_json(content["origin"]),
        unfinished=bool(content.get("unfinished", False)),
    )
