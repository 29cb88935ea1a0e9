"""Unencrypted checkpoints where a run starts with a key: which of them count, and what the user hears.

No key vouches for them, so anybody may have written them. They count only once the user has said so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from resilient.config import Sealing
from resilient.errors import UnusableError
from resilient.run.holdings import Holding
from resilient.run.rundir import RunRecord

_MOST_ACCEPTED = 256
"""Of each folder, the newest: a resumed run needs one, and the record is read at each start."""


@dataclass(frozen=True)
class Unencrypted:
    """Decides for a start that seals like this; ``accepted`` tells that the user has said --accept-plain."""

    sealing: Sealing
    accepted: bool
    warn: Callable[[str], None]

    def settle(self, record: RunRecord, holdings: Sequence[Holding], *, proven: bool) -> RunRecord:
        """The record with the unencrypted checkpoints that are taken as this run's.

        Raises UnusableError where there is nothing else, or nothing newer, that the run could resume from.
        """
        if self.sealing.key is None:
            return self._without_encryption(record)
        doubtful = [holding for holding in holdings if holding.plain]
        if not doubtful:
            return record
        names = ", ".join(holding.plain[-1].name for holding in doubtful)
        if self.accepted:
            digests = [digest for holding in doubtful for digest in _newest_digests(holding)]
            self.warn(
                f"unencrypted checkpoints are taken as this run's from now on (--accept-plain): {names}"
            )
            return replace(record, accepted=tuple(dict.fromkeys((*record.accepted, *digests))))
        alone = not any(holding.has_traces for holding in holdings)
        newer = any(
            max(claim.generation for claim in holding.plain) > holding.newest[0] for holding in doubtful
        )
        if alone or (newer and record.plain and not proven):
            raise UnusableError(
                f"checkpoints of this run are not encrypted, so anybody could have written them: {names}",
                hint="to resume from them, encrypted from now on: --accept-plain; or use --no-encrypt",
            )
        self.warn(
            f"not encrypted, so anybody could have put them there, and they are not used: {names} "
            "(--accept-plain takes them as this run's)"
        )
        return record

    def _without_encryption(self, record: RunRecord) -> RunRecord:
        if record.key_id is not None:
            self.warn(
                "this run was encrypted until now: from here on its checkpoints are NOT, "
                "and anybody who can write its directory can change them"
            )
        return replace(record, accepted=())


def _newest_digests(holding: Holding) -> Iterator[str]:
    claims = sorted(holding.plain, key=lambda claim: claim.generation, reverse=True)
    yield from (claim.digest for claim in claims[:_MOST_ACCEPTED])
