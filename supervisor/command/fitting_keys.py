"""Whether the keys that were given open the state that a run resumes from."""

from __future__ import annotations

from resilient.codec import keys
from resilient.config import Sealing
from resilient.errors import UnusableError
from resilient.run.reach import Reach
from resilient.run.rundir import RunRecord


def demand_keys(reach: Reach, record: RunRecord, sealing: Sealing) -> None:
    """Raises UnusableError where the keys do not open the state to resume from."""
    given = [keys.key_id(key) for key in (sealing.key, *sealing.old_keys) if key is not None]
    instead = f"not with {given[0]}" if given else "and none was given"
    hint = "give that key, with --old-key-file if a new one shall replace it; nothing was changed"
    if record.key_id not in (None, *given) and not reach.whole:
        wanted = reach.locked[0].key_id if reach.locked else record.key_id
        raise UnusableError(f"the run's checkpoints were made with the key {wanted}, {instead}", hint=hint)
    if reach.ahead is not None:
        name, wanted = reach.ahead.name, reach.ahead.key_id
        raise UnusableError(
            f"{name}, newer than all checkpoints that the keys open, was made with the key "
            f"{wanted}, {instead}",
            hint=hint,
        )
