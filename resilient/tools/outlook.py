"""How a run stands now, and what to do next, in words. Pure: an account and the present in, text out."""

from __future__ import annotations

from dataclasses import dataclass

from resilient.tools.account import Account
from resilient.tools.on_disk import OnDisk
from resilient.tools.phrases import paragraph
from resilient.tools.supervisions import FINISHED, RecordedSave

_NOBODY_LOOKED = OnDisk(unread="nobody has looked")


@dataclass(frozen=True)
class Present:
    """What is known of a run beside its journal.

    ``holder`` is the process that works on it now (0: none), ``elsewhere`` says why one that does cannot be
    seen from here. ``name`` is the run's directory as the person knows it; ``logs`` are the attempts that
    have left a log; ``disk`` is what of the run lies there.
    """

    name: str
    status: str = ""
    holder: int = 0
    elsewhere: str = ""
    logs: frozenset[int] = frozenset()
    disk: OnDisk = _NOBODY_LOOKED

    @property
    def alive(self) -> bool:
        """Whether anybody works on the run."""
        return self.holder != 0 or self.elsewhere != ""


def standing(account: Account, present: Present) -> str:
    """How the run stands now, and what to do next."""
    return paragraph(
        f"Now: {_now(account, present)} {_safe(account, present)} {advice(account, present)}", ""
    )


def newest(account: Account, present: Present) -> RecordedSave | None:
    """The checkpoint that the run would resume from, as the disk has it."""
    return present.disk.newest(account.durable, frozenset(account.files))


def gone(account: Account, present: Present) -> RecordedSave | None:
    """One that the journal reports, and that is not on disk."""
    found, reported = newest(account, present), account.durable
    return reported if reported is not None and (found is None or found.step < reported.step) else None


def _now(account: Account, present: Present) -> str:
    attempt = account.attempts[-1] if account.attempts else None
    if present.holder:
        what = f"; attempt {attempt.number} is the newest, at step {attempt.step} or later" if attempt else ""
        return f"it is being worked on by process {present.holder}{what}."
    if present.elsewhere:
        return f"{present.elsewhere}."
    if account.supervisions and account.supervisions[-1].broken:
        return "the supervisor ended the run for a fault of its own, and nobody works on it."
    if present.disk.against:
        return f"nobody works on the run. Its record says that it is complete, but {present.disk.against}."
    words = {
        "complete": "the run is complete.",
        "stopped": "the run was stopped, and nobody works on it.",
        "failed": "the run was given up, and nobody works on it.",
        "running": "nobody works on the run, although its record says that it is running.",
    }
    return words.get(present.status, "nobody works on the run.")


def _safe(account: Account, present: Present) -> str:
    save, missing, disk = newest(account, present), gone(account, present), present.disk
    absent = (
        f"The journal reports step {missing.step} as saved ({missing.file}): it is not there."
        if missing
        else ""
    )
    if save is None:
        return absent or "Nothing of it is saved yet."
    name = f" ({save.file})" if save.file else ""
    if disk.unread:
        return f"Step {save.step} is safe on disk{name}, says the journal; nobody can tell: {disk.unread}."
    state = "is on disk, sealed with a key that is not at hand" if save is disk.sealed else "is safe on disk"
    return f"Step {save.step} {state}{name}. {absent}".rstrip()


def advice(account: Account, present: Present) -> str:
    """What to do next, in a sentence or two."""
    if present.elsewhere:
        return "It goes on there."
    if present.holder:
        return f"To end it: resilient stop {present.name}."
    if present.status == "complete" and not present.disk.against:
        return "There is nothing left to do."
    save, missing = newest(account, present), gone(account, present)
    on = f"it goes on after step {save.step}" if save else "it starts from the beginning"
    if missing or present.disk.against:
        on = "it says which of its checkpoints it can use, and what you can do"
    again = f"run the same command again: {on}"
    cure = _cure(account)
    if cure:
        return f"Next: {cure}; then {again}."
    return f"Next: {again}."


def _cure(account: Account) -> str:
    """What to change before the next try; "" where nothing need be."""
    attempts, supervision = account.attempts, account.supervisions[-1] if account.supervisions else None
    if not attempts or supervision is None or supervision.stop_signal or not supervision.ended:
        return ""
    attempt = attempts[-1]
    if attempt.unsaved_step and attempt.unsaved_step > (account.durable.step if account.durable else 0):
        return f"make room or repair what kept step {attempt.unsaved_step} from being saved"
    if attempt.refusal:
        return f"see to this: {attempt.refusal.rstrip('.')}"
    verdict = attempt.verdict
    if verdict is None or verdict.kind == FINISHED:
        return ""
    return verdict.hint or "remove the cause that is named above"
