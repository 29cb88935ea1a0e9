"""Whether a run may start, and what its record says from then on.

In this order: what of run.json is believed (``belief``), whether the keys open the state to resume from
(``reach``), whether unencrypted checkpoints count, and whether everything is there that was saved
(``presence``). Each refusal is status 65, changes nothing, and names what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from resilient.codec import keys
from resilient.config import Sealing
from resilient.errors import StorageError, UnusableError
from resilient.host.world import World
from resilient.run import presence
from resilient.run.belief import is_proven, objection, reduced
from resilient.run.floor import Floor, FloorFile, Heights, lodger, merged, moved_along, read_quietly
from resilient.run.holdings import Holding, take_stock
from resilient.run.places import Places, find_places, homes
from resilient.run.reach import Reach, look
from resilient.run.record_seal import Seal
from resilient.run.rundir import FoundRecord, RunDirectory, RunRecord
from resilient.store import layout
from supervisor.checkpointing.floor_keeper import FloorKeeper
from supervisor.command import old_journal
from supervisor.command.acceptance import Accept
from supervisor.command.completion import Surroundings, newest_attempt
from supervisor.command.fitting_keys import demand_keys
from supervisor.command.unencrypted import Unencrypted

_MOST_NAMED = 20
_STRANGERS_HINT = "put the right run.json back, or name another --run-dir; to start anew: --fresh --archive"

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Admitted:
    """A run that may start: its directory, the keys of its other records, and the keeper of its floor.

    ``proven`` tells whether the record was sealed before: then whatever else has no seal was not left by an
    earlier version.
    """

    directory: RunDirectory
    record: RunRecord
    keys: tuple[bytes, ...] = field(repr=False)
    proven: bool
    floor: FloorKeeper


@dataclass(frozen=True)
class Admission:
    """Decides for one run directory; ``warn`` hears what the user ought to know.

    ``resumes`` tells whether the program can resume from checkpoints.
    """

    directory: RunDirectory
    sealing: Sealing
    accept: Accept
    config_home: Path
    warn: Warn
    world: World
    resumes: bool = True

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All that were given, the one that seals first."""
        sealing = self.sealing
        return tuple(key for key in (sealing.key, *sealing.old_keys) if key is not None)

    def sealing_keys(self, record: RunRecord) -> tuple[bytes, ...]:
        """Those that seal the record: today's, and the one it names, as long as both are in use."""
        if self.sealing.key is None:
            return ()
        named = [key for key in self.sealing.old_keys if keys.key_id(key) == record.key_id]
        return tuple(dict.fromkeys((self.sealing.key, *named)))

    def believes_complete(self, found: FoundRecord) -> bool:
        """Whether a record that says that the run is complete is believed.

        Where not, and there are checkpoints, a resumed script shows it. Raises UnusableError where nothing
        else can, and where the record does not fit what lies around it.
        """
        if self.accept.unsealed and not self.resumes:
            return True
        if is_proven(found, self.keys):
            return self._fits(found.record)
        if not self.resumes:
            raise UnusableError(
                f"{self.directory.root / 'run.json'} says that the run is complete, and the run's key "
                "does not vouch for it",
                hint="to believe it: --accept-unsealed; to start anew: --fresh --archive",
            )
        return False

    def _fits(self, record: RunRecord) -> bool:
        """Whether a record that says that the run is complete fits what lies around it."""
        files, root = self.world.files, self.directory.root
        floor, _ = read_quietly(self._floor_file(record.run_id))
        places = find_places(files, root, record)
        heights, _ = self._heights(floor, record, places)
        holdings = self._take_stock(places, record, heights)
        is_known = floor is not None and floor.knows(root)
        lodging = "" if is_known else lodger(self.world, self.config_home, root, record.run_id)
        told = old_journal.run_of(files, self.directory.journal)
        elsewhere = self._is_only_in_others(record, places, holdings)
        around = Surroundings(root, holdings, heights, told, lodging, elsewhere)
        against = around.objection(record)
        if against and not (self.accept.rollback and self.resumes):
            raise UnusableError(
                f"{root / 'run.json'} says that the run is complete, and {against}",
                hint=self._hint_for_complete(record, holdings),
            )
        is_older = newest_attempt(holdings) > record.attempts
        if is_older and not against:
            self.warn(
                "run.json is older than the newest checkpoint, so the run need not be complete: it goes on"
            )
        return not (against or is_older)

    def _hint_for_complete(self, record: RunRecord, holdings: Sequence[Holding]) -> str:
        if not self.resumes:
            return "put the right run.json back; to believe it: --accept-unsealed; or --fresh --archive"
        if self.directory.root in presence.strangers(self.directory.root, holdings, record.run_id):
            return _STRANGERS_HINT
        return (
            "restore what is missing (an unmounted volume?), or the right run.json; to have the "
            "script resume from the newest that is there: --accept-rollback; or --fresh --archive"
        )

    def admit(self, found: FoundRecord, command: tuple[str, ...]) -> Admitted:
        """The run as it is from now on; its record is durable.

        Raises UnusableError where the run must not start like this.
        """
        proven = is_proven(found, self.keys)
        record = found.record if proven else reduced(found.record)
        places = find_places(self.world.files, self.directory.root, record)
        self._tell_places(places)
        floors = self._floor_file(record.run_id)
        floor, trouble = read_quietly(floors)
        holdings = self._take_stock(places, record, self._heights(floor, record, places)[0])
        reach = look(self.world, places, record, self.sealing, holdings)
        demand_keys(reach, record, self.sealing)
        self._demand_readable(found, holdings, floor, proven=proven)
        encryption = Unencrypted(self.sealing, accepted=self.accept.plain, warn=self.warn)
        record = encryption.settle(record, holdings, proven=proven)
        if self.accept.plain:
            holdings = self._take_stock(places, record, self._heights(floor, record, places)[0])
        elsewhere = self._is_only_in_others(record, places, holdings)
        saved = self._demand_presence(record, places, holdings, floor, elsewhere=elsewhere)
        changed = self._settled(record, places, reach, command)
        if elsewhere and not self.accept.rollback:
            # The next start must know of them too, if no worker comes so far as to name its place.
            changed = replace(changed, home=record.home, checkpoints=record.checkpoints)
        # A record that was put back from a copy may have forgotten some attempts.
        attempts = max(changed.attempts, newest_attempt(holdings))
        changed = replace(changed, saved=saved, attempts=attempts)
        sealing_keys = self.sealing_keys(changed)
        directory = self.directory.sealed_with(sealing_keys)
        directory.write(changed)
        if trouble:
            self.warn(trouble)
        keeper = self._keep_floor(floors, floor, record, places, holdings)
        # Records of the last start may be sealed with an older key only.
        return Admitted(directory, changed, self.keys if sealing_keys else (), proven, keeper)

    def _take_stock(self, places: Places, record: RunRecord, heights: Heights) -> tuple[Holding, ...]:
        """All folders of the run, and those that the floor knows: the record may have forgotten them."""
        ranks = places.ranks(self.world.files, record.world_size)
        folders = [(place, rank) for place in places.own for rank in ranks]
        folders += [known for folder in heights if (known := _place_of(self.directory.root, folder))]
        return take_stock(self.world, dict.fromkeys(folders), record, self.sealing)

    def _tell_places(self, places: Places) -> None:
        for other in places.others:
            # Only the script knows whether it will go there again, and the two cannot be told apart there.
            instead = f"in {other.copy}, which was copied with it" if other.copy else "elsewhere"
            self.warn(
                f"this run is a copy, and {other.place} belongs to the run in {other.owner}: have the script "
                f"keep its checkpoints {instead}, or both runs go on with the same ones"
            )
        for remark in places.absences():
            self.warn(remark)

    # The record

    def _demand_readable(
        self, found: FoundRecord, holdings: Sequence[Holding], floor: Floor | None, *, proven: bool
    ) -> None:
        """Raises UnusableError for a record that is not proven and must be."""
        if proven and self.keys:
            return
        known = homes(self.world.files, self.directory.root, found.record)
        against = objection(found, self.keys, holdings, floor and floor.of(*known))
        if against and not self.accept.unsealed:
            raise UnusableError(
                f"{self.directory.root / 'run.json'} cannot be believed: {against}",
                hint="put a copy of it back; or look at it and read it all the same: --accept-unsealed; "
                "or start anew: --fresh --archive",
            )
        if against or (found.seal is not Seal.LOCKED and not proven):
            why = against or "an earlier version has written it"
            self.warn(
                f"run.json is not sealed with the run's key ({why}): only what the key vouches for "
                "elsewhere counts, and it is sealed now"
            )

    def _settled(
        self, record: RunRecord, places: Places, reach: Reach, command: tuple[str, ...]
    ) -> RunRecord:
        """The record as it is written. It names the new key once nothing is left that needs another one."""
        key_id = keys.key_id(self.sealing.key) if self.sealing.key is not None else None
        plain = record.plain or self.sealing.mode is None
        told = (*record.key_ids, record.key_id, key_id)
        key_ids = tuple(dict.fromkeys(one for one in told if one is not None))
        changed = replace(places.settle(record), plain=plain, key_ids=key_ids, command=command)
        if reach.opens_with(key_id):
            changed = replace(changed, key_id=key_id, mode=self.sealing.mode)
        return changed

    # What was saved

    def _demand_presence(
        self,
        record: RunRecord,
        places: Places,
        holdings: Sequence[Holding],
        floor: Floor | None,
        *,
        elsewhere: bool,
    ) -> bool:
        """Whether the run has saved. Raises UnusableError where something is missing that it has saved."""
        heights, _ = self._heights(floor, record, places)
        there = any(holding.has_traces for holding in holdings)
        self._demand_no_strangers(record, holdings)
        for shortfall in presence.find_shortfalls(self.directory.root, heights, holdings):
            if not (shortfall.damaged or self.accept.rollback):
                raise UnusableError(
                    f"this run was set back: {shortfall}",
                    hint="restore what is missing (an unmounted volume?); to resume from the newest that is "
                    "there: --accept-rollback"
                    if there
                    else presence.NOTHING_HINT,
                )
            self.warn(f"{'' if shortfall.damaged else 'as was accepted: '}{shortfall}")
        self._tell_elsewhere(floor, holdings)
        if elsewhere:
            # Only the script knows whether it goes there. If not, the worker rejects a start from zero.
            return not self.accept.rollback
        evidence = "" if there else self._evidence(record, heights)
        if evidence and not self.accept.rollback:
            raise UnusableError(
                f"{evidence}, and there is no checkpoint of this run in {_places_text(holdings)}"
                f"{_aside_text(holdings)}",
                hint=presence.NOTHING_HINT,
            )
        if evidence:
            self.warn(
                f"{evidence}, and nothing of it is there: the run begins from step 1, unless the directory "
                "that the script names holds checkpoints of it (--accept-rollback)"
            )
        return there

    def _is_only_in_others(self, record: RunRecord, places: Places, holdings: Sequence[Holding]) -> bool:
        """Whether all that there is of the run is in places of the one that it is a copy of."""
        if any(holding.has_traces for holding in holdings):
            return False
        theirs = replace(places, own=tuple(other.place for other in places.others))
        try:
            ranks = theirs.ranks(self.world.files, record.world_size)
            folders = [(place, rank) for place in theirs.own for rank in ranks]
            found = take_stock(self.world, folders, record, self.sealing)
        except StorageError:
            return False
        return any(holding.has_traces for holding in found)

    def _evidence(self, record: RunRecord, heights: Heights) -> str:
        """Why there should be a checkpoint; "" where the run has never saved one, as far as anybody knows."""
        if record.saved or heights:
            return "this run has saved checkpoints"
        if old_journal.tells_of_saves(self.world.files, self.directory.journal):
            return "journal.jsonl tells of checkpoints that were saved"
        return ""

    def _demand_no_strangers(self, record: RunRecord, holdings: Sequence[Holding]) -> None:
        for place, ids in presence.strangers(self.directory.root, holdings, record.run_id).items():
            runs = ", ".join(ids)
            if place != self.directory.root:
                self.warn(
                    f"{place} holds checkpoints of other runs only ({runs}); this run begins anew there"
                )
                continue
            raise UnusableError(
                f"{place} holds checkpoints of another run ({runs}) and none of the run that its run.json "
                f"names ({record.run_id})",
                hint=_STRANGERS_HINT,
            )

    # The floor

    def _floor_file(self, run_id: str) -> FloorFile:
        sealing = self.keys if self.sealing.key is not None else ()
        return FloorFile(self.world, self.config_home, run_id, sealing)

    def _heights(self, floor: Floor | None, record: RunRecord, places: Places) -> tuple[Heights, Path | None]:
        """What the floor says of this directory, and where the run was before it was moved."""
        root = self.directory.root
        if floor is None:
            return {}, None
        here, *before = homes(self.world.files, root, record)
        if before and not floor.knows(here):
            return moved_along(root, floor.heights(before[0]), places.followed), before[0]
        return floor.heights(here), None

    def _tell_elsewhere(self, floor: Floor | None, holdings: Sequence[Holding]) -> None:
        """Another machine that shares this home directory may have had another disk in the same place."""
        if floor is None:
            return
        root = self.directory.root
        for machine, heights in floor.elsewhere(root).items():
            for shortfall in presence.find_shortfalls(root, heights, holdings):
                self.warn(f"on {machine} this run had come further: {shortfall}")

    def _keep_floor(
        self,
        floors: FloorFile,
        floor: Floor | None,
        record: RunRecord,
        places: Places,
        holdings: Sequence[Holding],
    ) -> FloorKeeper:
        root = self.directory.root
        known, moved_from = self._heights(floor, record, places)
        found = presence.heights_of(root, holdings)
        # A floor is never lowered unless the user has said so: a damaged checkpoint was saved all the same.
        heights = found if self.accept.rollback else merged(known, found)
        right = Seal.SEALED if self.sealing.key is not None else Seal.UNSEALED
        is_news = heights != known or (floor is not None and floor.seal is not right)
        return FloorKeeper(floors, root, heights, moved_from, is_news=is_news)


def _places_text(holdings: Iterable[Holding]) -> str:
    return ", ".join(dict.fromkeys(str(holding.directory) for holding in holdings))


def _aside_text(holdings: Iterable[Holding]) -> str:
    """Names what an earlier start has set aside: it is no unmounted volume then."""
    aside = {name for holding in holdings for name in holding.aside if name.endswith(layout.DATA_SUFFIX)}
    names = sorted(aside)[-_MOST_NAMED:]
    more = f" and {len(aside) - len(names)} more" if len(aside) > len(names) else ""
    return f"; set aside in quarantine/: {', '.join(names)}{more}" if names else ""


def _place_of(root: Path, folder: str) -> tuple[Path, int] | None:
    """The place and the rank of a folder of checkpoints; None for the name of none."""
    directory = root / folder
    rank = layout.rank_of_folder(directory.name)
    return (directory.parent.parent, rank) if rank is not None else None
