"""What of a run is on disk now: the checkpoints themselves, and whether its record fits them.

The journal tells what was reported. Files may have gone since, and lines of the journal may be missing. So
only what lies there is called safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resilient.errors import ResilientError
from resilient.host.terminal import printable
from resilient.host.world import World
from resilient.run import presence, rundir
from resilient.run.holdings import Holding
from resilient.run.record_seal import Seal
from resilient.run.rundir import RunDirectory
from resilient.store.entry import Entry
from resilient.tools.opened_run import OpenedRun, own_keys
from resilient.tools.supervisions import RecordedSave


@dataclass(frozen=True)
class OnDisk:
    """``folders`` are the run's checkpoints, the newest of each folder first.

    ``sealed`` is a newer one, or the only one, whose key is not at hand. ``unread`` says why nobody can tell;
    then the journal's word is all there is. ``against`` says what speaks against a record that calls the run
    complete.
    """

    folders: tuple[tuple[RecordedSave, ...], ...] = ()
    sealed: RecordedSave | None = None
    unread: str = ""
    against: str = ""

    def newest(self, reported: RecordedSave | None, files: frozenset[str]) -> RecordedSave | None:
        """The checkpoint that the run would resume from; ``reported`` is what the journal takes for that.

        ``files`` are all that the journal tells of. One that it does not know of is news. One that it knows
        and that is newer than ``reported`` was passed over: an attempt went back behind it.
        """
        if self.unread or self.sealed is not None:
            return self.sealed or reported
        name = reported.file if reported is not None else ""
        # Only within a folder there is an order that no clock has made.
        newest = [
            next((save for save in saves if save.file == name or save.file not in files), saves[0])
            for saves in self.folders
            if saves
        ]
        return max(newest, key=lambda save: save.step, default=None)


def look_at_disk(directory: RunDirectory) -> OnDisk:
    """What lies there. It never raises: where it cannot be read, that is the answer."""
    try:
        record = directory.read()
        if record is None:
            return OnDisk()
        opening = tuple(own_keys(record))
        found = directory.look(opening)
        if found is None:
            return OnDisk()
        run = OpenedRun(directory, found, opening, World())
        holdings = run.holdings
        if run.places.missing and not any(holding.has_traces for holding in holdings):
            missing = ", ".join(map(str, run.places.missing))
            return OnDisk(unread=f"{missing} is not there")
        return OnDisk(
            tuple(tuple(map(_save, holding.entries)) for holding in holdings),
            _sealed(holdings),
            "",
            _against(run, holdings),
        )
    except (ResilientError, OSError) as error:
        return OnDisk(unread=str(error))


def _save(entry: Entry) -> RecordedSave:
    return RecordedSave(entry.step, entry.manifest.epoch, entry.name, entry.manifest.reason, entry.created)


def _sealed(holdings: tuple[Holding, ...]) -> RecordedSave | None:
    found = [(*holding.newest, holding) for holding in holdings if holding.locked]
    _, step, name, holding = max(found, key=lambda one: one[0], default=(0, 0, "", None))
    if holding is None or any(entry.name == name for entry in holding.entries):
        return None
    return RecordedSave(step, None, printable(name), "", None)


def _against(run: OpenedRun, holdings: tuple[Holding, ...]) -> str:
    if run.found.record.status != rundir.COMPLETE:
        return ""
    return next(_objections(run, holdings), "")


def _objections(run: OpenedRun, holdings: tuple[Holding, ...]) -> Iterator[str]:
    absent = run.found.seal is Seal.LOCKED or (not run.keys and any(holding.locked for holding in holdings))
    if absent or run.record.status != rundir.COMPLETE:
        yield run.objection or (
            "the key that could vouch for that is not at hand" if absent else "no key vouches for that"
        )
    if run.root in presence.strangers(run.root, holdings, run.record.run_id):
        yield f"{run.root} holds checkpoints of another run"
    if run.record.saved and not any(holding.has_traces for holding in holdings):
        yield "there is no checkpoint of it"
    attempts = [entry.info.get("attempt") for holding in holdings for entry in holding.entries[:1]]
    if any(isinstance(number, int) and number > run.record.attempts for number in attempts):
        yield "its newest checkpoint is of a later attempt"
