"""What a worker shares with its supervisor: the heartbeat's page, and the mirror of the last attempt."""

from __future__ import annotations

from dataclasses import dataclass, field

from resilient.saving import slots
from resilient.state.snapshot import Recovered, TensorValue, decode_extra
from resilient.wire.heartbeat import Heartbeat
from resilient.wire.mirror import Mirror


@dataclass
class SharedPages:
    """Memory that came with the configuration; ``mirror`` is the rank's, whoever has made it.

    Without a supervisor the heartbeat is in memory that nobody else looks at.
    """

    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    mirror: Mirror | None = None


def recover_from(mirror: Mirror) -> Recovered | None:
    """The newest state in a mirror, over its own memory; None when there is none.

    Raises MirrorError and CorruptError for what makes no sense.
    """
    slot = mirror.newest()
    if slot is None:
        return None
    snapshot = slots.snapshot(mirror, slot, "", failure=True)
    document, progress = decode_extra(snapshot.extra)
    tensors = {
        (r.section, r.name): TensorValue(r.dtype, r.dims, memoryview(r.data)) for r in snapshot.records
    }
    return Recovered(tensors, document, progress, "memory")
