"""How much of run.json is believed: pure, from its seal and from what else there is of the run.

With a key at hand, nothing of run.json is believed that no seal of that key covers. Runs of versions before
the seal have none. They are read in a reduced way: never complete, nothing unencrypted, nothing accepted.
The rest names where to look, which key to ask for and what was begun, and every checkpoint found that way is
authenticated. So stripping the seal gains nothing where this version has worked on the run: each checkpoint
it makes says that the record was sealed (``holdings.PROVEN``), and the floor is sealed too. Either one turns
a missing seal into a refusal.
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
    """Whether the record is what somebody with one of the keys has written; without a key all there is."""
    return found.seal is Seal.SEALED or (found.seal is Seal.UNSEALED and not list(keys))


def reduced(record: RunRecord) -> RunRecord:
    """What may be read of a record that no key vouches for."""
    status = rundir.STOPPED if record.status == rundir.COMPLETE else record.status
    return replace(record, status=status, accepted=())


def objection(
    found: FoundRecord, keys: Iterable[bytes], holdings: Iterable[Holding], floor: Floor | None
) -> str:
    """Why a record that is not proven cannot be read at all; "" where it may be read in the reduced way."""
    if found.seal is Seal.BROKEN:
        return "it was changed by somebody without the run's key"
    given = {key_id(key) for key in keys}
    lost = "its seal is gone" if found.seal is Seal.UNSEALED else "no key that was given has sealed it"
    for holding in holdings:
        for entry in holding.entries:
            if entry.manifest.key_id in given and entry.info.get(PROVEN) is True:
                return f"{lost}, and one had when {entry.name} was saved"
    if given and floor is not None and floor.seal is Seal.SEALED:
        return f"{lost}, and one had when this run was last worked on here"
    if not given and floor is not None and floor.seal is Seal.LOCKED:
        return f"{lost}, and the run was encrypted when it was last worked on here"
    return ""
