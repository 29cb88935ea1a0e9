"""The judge of one run: what went before, what is decided after each attempt, and what is kept of it.

The decisions are ``restart``'s and ``ledger``'s, and pure. Here they meet the run: progress is noted as it is
told, and each judgment is written into the journal, and the ledger onto disk.
"""

from __future__ import annotations

from dataclasses import replace

from resilient.config import Origin
from resilient.host.world import World
from resilient.journal.events import AttemptJudged, StateShunned, StepPoisoned
from resilient.wire.messages import CheckpointSaved, FirstStep, Resumed, Resuming, WorkerNews
from supervisor.edges.journal_writer import JournalWriter
from supervisor.verdict import ledger as trials
from supervisor.verdict.classify import FINISHED, NOTHING_OLDER, NUMERICAL, Evidence, Incident, classify
from supervisor.verdict.ledger import TrialFile, TrialLedger
from supervisor.verdict.restart import History, RestartPolicy, Verdict, decide
from supervisor.verdict.standing import Standing


class Judge:
    """Judges the attempts of one run. ``incident`` and ``verdict`` are the newest ones."""

    def __init__(self, policy: RestartPolicy, file: TrialFile, journal: JournalWriter, world: World) -> None:
        self._policy = policy
        self._file = file
        self._journal = journal
        self._clock = world.clock
        self._entropy = world.entropy
        self._history = History()
        self._attempt = 0
        self._judged = 0
        self._is_persons_turn = True
        self.incident = Incident(FINISHED, "", 0)
        self.verdict = Verdict(None, "", self._history)

    @property
    def durable_step(self) -> int:
        """The newest step that is safe on disk."""
        return self._history.durable_step

    @property
    def origin(self) -> Origin:
        """The states that the next attempt may resume from."""
        return self._history.ledger.origin

    def standing(self, kept_step: int) -> Standing:
        """How far the run has come, where ``kept_step`` is the newest step in memory."""
        return Standing(self.durable_step, kept_step, self._may_use(kept_step))

    def _may_use(self, step: int) -> bool:
        """Whether the run may resume from the state in memory, which is of this step."""
        spoilt = self.incident.kind == NUMERICAL
        return not spoilt and not any(rule.covers(step, self._judged) for rule in self.origin.shunned)

    @property
    def has_given_up(self) -> bool:
        """Whether the run ends because of what has failed, and not because somebody has asked for its end."""
        failed = self.incident.kind != FINISHED
        return failed and self._is_persons_turn and self.verdict.delay_s is None

    # Events of the run

    def open(self, attempts: int) -> str:
        """Reads what an earlier supervisor has left behind; what was concluded from it, for people."""
        found = trials.reopen(self._file.read(), attempts)
        self._attempt = self._judged = attempts
        self._keep(found.ledger, found.action)
        # An empty one as well: a ledger that is missing counts as removed. An older key may have sealed it.
        self._file.write(self._history.ledger)
        return found.action

    def begin(self, attempt: int) -> None:
        """An attempt is being launched."""
        self._attempt = attempt

    def note(self, message: WorkerNews, *, alive: bool) -> None:
        """Takes note of a message about the run: by a worker that is ``alive``, or about one that is not."""
        match message:
            case Resuming(step, file):
                self._keep(trials.begin(self._history.ledger, step, file))
            case Resumed(step=step, file=file):
                self._resumed(step, file)
            case FirstStep():
                self._keep(trials.good(self._history.ledger))
            case CheckpointSaved(step) if alive or self._may_use(step):
                self._history = replace(self._history, durable_step=max(step, self.durable_step))

    def _resumed(self, step: int, source: str) -> None:
        """A newer state on disk than the one that was read is spoilt or damaged: it counts for nothing."""
        if source != "memory" and (self.durable_step == 0 or step < self.durable_step):
            self._history = replace(self._history, durable_step=step, judged_step=step)

    def found(self, step: int, on_disk: int | None) -> None:
        """A worker could not tell what it did: the newest step that it has completed, and the one on disk.

        0 for none, None where that is not known.
        """
        if step:
            self._keep(trials.good(self._history.ledger))
        self._history = replace(self._history, durable_step=max(self.durable_step, on_disk or 0))

    def judge(self, evidence: Evidence, *, stopping: bool) -> None:
        """An attempt is over: why, and what follows."""
        self._judged = self._attempt
        evidence = replace(evidence, unfinished=self._history.ledger.unfinished)
        action, self.incident = self.verdict.action, self._explain(classify(evidence))
        jitter = int.from_bytes(self._entropy.token(4), "little") / 2**32
        self.verdict = decide(
            self._history,
            self.incident,
            self._policy,
            self._clock.monotonic(),
            jitter,
            attempt=self._attempt,
            stopping=stopping,
        )
        if self.incident.kind == NOTHING_OLDER and self.verdict.delay_s is None:
            self.verdict = replace(self.verdict, reason=f"{action}, and there is none")
        changed = replace(self.verdict.history.ledger, unfinished=evidence.leaves_unfinished)
        self._history = replace(self.verdict.history, ledger=self._history.ledger)
        self._is_persons_turn = not stopping and self.incident.kind != FINISHED
        if self.verdict.delay_s is None:
            changed = self._left_to_next(changed)
        self._keep(changed, self.verdict.action)

    def _left_to_next(self, ledger: TrialLedger) -> TrialLedger:
        """The ledger for the next start of the run: all of it, unless we give up."""
        # A trial that a stop has cut short is no failure, as one would be that we die in.
        return _forgiven(ledger) if self._is_persons_turn else replace(ledger, open=False)

    def _explain(self, incident: Incident) -> Incident:
        """Where there is no older state, the incident that made us look for one is the cause."""
        if incident.kind != NOTHING_OLDER:
            return incident
        before = self.incident
        return replace(
            incident,
            cause=before.cause or incident.cause,
            status=before.status or incident.status,
            hint=before.hint,
            traceback=before.traceback,
        )

    def give_up(self, reason: str) -> None:
        """The attempt that was granted cannot be, for this reason."""
        self.verdict = replace(self.verdict, delay_s=None, reason=reason)
        self._keep(self._left_to_next(self._history.ledger))

    def journal(self, standing: Standing) -> None:
        """Writes the newest judgment down, and how far the run had come."""
        incident, verdict = self.incident, self.verdict
        judged = AttemptJudged(
            attempt=self._attempt,
            kind=incident.kind,
            cause=incident.cause,
            status=incident.status,
            step=incident.step,
            phase=incident.phase,
            at_start=incident.at_start,
            evidence=incident.why,
            restart_in_s=verdict.delay_s,
            reason=verdict.reason,
            action=verdict.action,
            hint=incident.hint,
            saved_step=standing.durable_step,
            kept_step=standing.kept_step,
        )
        self._journal.write(judged)

    def _keep(self, ledger: TrialLedger, why: str = "") -> None:
        """Remembers a ledger, on disk as well where it has changed."""
        before = self._history.ledger
        if ledger == before:
            return
        self._history = replace(self._history, ledger=ledger)
        self._file.write(ledger)
        for rule in [rule for rule in ledger.origin.shunned if rule not in before.origin.shunned]:
            self._journal.write(StateShunned(rule.step, why, attempt=rule.attempt))
        for step in [step for step in ledger.origin.skipped if step not in before.origin.skipped]:
            self._journal.write(StepPoisoned(step, "skip-batch", why))


def _forgiven(ledger: TrialLedger) -> TrialLedger:
    """The ledger of a run that is given up: once the cause is removed, what was set aside is tried again.

    A state whose loss was not finite does not become better by that, and what is unfinished stays so.
    """
    return TrialLedger(origin=Origin(finite=ledger.origin.finite), unfinished=ledger.unfinished)
