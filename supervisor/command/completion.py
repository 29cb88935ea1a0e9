"""Whether a run that its record calls complete is the one that lies there.

The key vouches for the record when this is asked. Yet it may be the record of another run of the same key, or
an older one of this run, that somebody has put there: then a run would count as complete that is not. So the
record has to fit what lies around it. Files without a seal, as the journal, can only speak against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resilient.host.directories import is_same
from resilient.run import presence
from resilient.run.floor import Heights
from resilient.run.holdings import Holding
from resilient.run.rundir import RunRecord


@dataclass(frozen=True)
class Surroundings:
    """What lies around a record in ``root``.

    ``heights`` are what the floor says of the run there. ``journal_run`` is the run that the journal there
    has told of last, and ``lodger`` another run that the floor knows there instead of this one; "" for none.
    ``elsewhere`` tells that the run is a copy, and that all of its checkpoints are in places of the original.
    """

    root: Path
    holdings: Sequence[Holding]
    heights: Heights
    journal_run: str
    lodger: str
    elsewhere: bool

    def objection(self, record: RunRecord) -> str:
        """Why the run is not complete here, though its record says so; "" where all fits."""
        return self._another(record) or self._missing(record)

    def _another(self, record: RunRecord) -> str:
        root, mine = self.root, record.run_id
        claims = [claim for holding in self.holdings if holding.place == root for claim in holding.strange]
        if others := sorted({claim.run_id for claim in claims} - {mine}):
            return f"{root} holds checkpoints of another run than run.json names ({', '.join(others)})"
        if self.journal_run not in ("", mine):
            return f"journal.jsonl tells of another run than run.json names ({self.journal_run})"
        if not self.journal_run and not is_same(Path(record.home or root), root):
            return f"run.json was written in {record.home}, and no journal in {root} tells of its run"
        if self.lodger:
            return f"another run than run.json names was worked on in {root} before ({self.lodger})"
        return ""

    def _missing(self, record: RunRecord) -> str:
        shortfalls = presence.find_shortfalls(self.root, self.heights, self.holdings)
        for shortfall in shortfalls:
            if not shortfall.damaged:
                return f"{shortfall}"
        is_there = self.elsewhere or any(holding.has_traces for holding in self.holdings)
        if record.saved and not shortfalls and not is_there:
            places = ", ".join(dict.fromkeys(str(holding.directory) for holding in self.holdings))
            return f"the run has saved checkpoints, and there is none of it in {places}"
        return ""


def newest_attempt(holdings: Sequence[Holding]) -> int:
    """The number of the attempt that has made the newest checkpoint of a folder; 0 where none is known."""
    newest = [holding.entries[0].info.get("attempt") for holding in holdings if holding.entries]
    return max((n for n in newest if type(n) is int and 0 < n < 2**30), default=0)
