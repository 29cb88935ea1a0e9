"""Decides how much of run.json to trust, from its seal and from the rest of the run. Pure.

With a key at hand, we trust only fields of run.json that a seal of that key covers. Runs of versions before
the seal have none. We read those in a reduced way: never complete, nothing unencrypted, nothing accepted.
The other fields only say where to look, which key to ask for and what was begun, and every checkpoint found
that way is authenticated. An attacker who strips the seal gains nothing once this version has worked on the
run: each checkpoint it makes says that the record was sealed (``holdings.PROVEN``), and the floor is sealed
too. Either one turns a missing seal into a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from resilient.codec.keys import key_id
from resilient.run import rundir
from resilient.run.floor import Floor
from resilient.run.holdings import PROVEN, Holding
from resilient.run.record_seal import Seal
from resilient.run.rundir import FoundRecord, RunRecord


def is_proven(found: FoundRecord, keys: Iterable[bytes]) -> bool:
    """Whether a holder of one of the keys wrote the record; without a key, any unsealed record is proven."""
    return found.seal is Seal.SEALED or (found.seal is Seal.UNSEALED and not list(keys))


def reduced(record: RunRecord) -> RunRecord:
    """The part of a record that may be used although no key vouches for it."""
    status = rundir.STOPPED if record.status == rundir.COMPLETE else record.status
    return replace(record, status=status, accepted=())


def objection(
    found: FoundRecord, keys: Iterable[bytes], holdings: Iterable[Holding], floor: Floor | None
) -> str:
    """The reason to reject an unproven record; "" when it may be read in the reduced way."""
    if found.seal is Seal.BROKEN:
        return "somebody without the run's key changed it"
    given = {key_id(key) for key in keys}
    lost = "its seal is gone" if found.seal is Seal.UNSEALED else "none of the given keys sealed it"
    for holding in holdings:
        for entry in holding.entries:
            if entry.manifest.key_id in given and entry.info.get(PROVEN) is True:
                return f"{lost}, but a given key had sealed it when {entry.name} was saved"
    if given and floor is not None and floor.seal is Seal.SEALED:
        return f"{lost}, but a given key had sealed it when this run last ran here"
    if not given and floor is not None and floor.seal is Seal.LOCKED:
        return f"{lost}, but the run was encrypted when it last ran here"
    return ""
