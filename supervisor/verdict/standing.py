"""How far a run has come: one value, which the judge's word and the memory of the workers make together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """``durable_step`` is the newest step safe on disk, ``kept_step`` the newest in memory; 0 for none.

    ``usable`` tells whether the run may resume from the memory: no rule of the ledger has set it aside.
    """

    durable_step: int
    kept_step: int
    usable: bool = True

    @property
    def is_ahead(self) -> bool:
        """Whether the memory holds a later step than the disk."""
        return self.kept_step > self.durable_step

    @property
    def resumes_from_memory(self) -> bool:
        """Whether the next attempt is offered the memory: usable, and as new as the disk."""
        return self.usable and self.kept_step >= max(1, self.durable_step)
