"""Whether a training call is mirrored, and what it takes: memory, and a saver that has taken over.

While a mirror is kept, the supervisor's saver commits and holds the rank's lock. Without one, for want of
memory or of a saver, this process does, as it does without a supervisor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from resilient.config import KeepPolicy, MirrorPolicy, Sealing
from resilient.errors import LinkError, MirrorFullError, StorageError
from resilient.host.memory import available_bytes
from resilient.host.shared_memory import SharedMemory
from resilient.policy.settings import Settings
from resilient.saving.in_process import Saver
from resilient.saving.remote import MirrorMeans, RemoteSaver
from resilient.sizes import size
from resilient.wire.mirror import META_BYTES, Mirror, MirrorLayout, needed_bytes
from resilient.worker.session.open_places import OpenPlace
from resilient.worker.session.session import Session

# Of the free memory so much is left to others.
_SPARE_SHARE = 0.1


class MirrorSetup:
    """The mirror of one process, from its first training call to its last."""

    def __init__(self, session: Session, policy: MirrorPolicy, remote: RemoteSaver) -> None:
        self._session = session
        self._policy = policy
        self._remote = remote
        self._handed_over: tuple[Path, KeepPolicy, Sealing] | None = None

    def means(
        self, settings: Settings, make_layout: Callable[[str, int, Sequence[int]], MirrorLayout]
    ) -> MirrorMeans | None:
        """What it takes to keep a mirror of one call; None where there can be none."""
        place = self._session.open(settings)
        assert self._session.config is not None
        layout = partial(make_layout, place.run_id, self._session.config.rank)
        made = layout(())
        # A save that is not waited for takes a slot of its own.
        slots = self._policy.slots or (2 if settings.asynchronous is None else 3)
        if not (self._has_memory(made, slots) and self._hand_over(settings, place)):
            self._do_without(place)
            return None
        return MirrorMeans(
            make=partial(self._mirror, layout, slots),
            remote=self._remote,
            alone=partial(self._commit_alone, settings, place),
            failed=self._session.tell_failed_save,
            lacking=self._tell_lacking,
            clock=self._session.world.clock,
            heartbeat=self._session.shared.heartbeat,
        )

    def _has_memory(self, made: MirrorLayout, slots: int) -> bool:
        known = self._session.shared.mirror
        if known is not None and known.layout == made:
            return True
        needed, there = needed_bytes(made, slots), available_bytes()
        if needed <= there - _SPARE_SHARE * there:
            return True
        self._session.warn(
            f"the mirror is off: it needs {size(needed)} and {size(there)} are free; "
            "a worker that is killed goes back to its last checkpoint"
        )
        return False

    def _hand_over(self, settings: Settings, place: OpenPlace) -> bool:
        """From now on the saver commits; False when it cannot."""
        wanted = place.root, settings.keep, place.sealing
        if self._handed_over == wanted:
            return True
        self._session.unlock_rank()
        try:
            self._remote.open(*wanted)
        except StorageError as error:
            self._session.warn(f"the mirror is off: the saver cannot use {place.root}: {error}")
            return False
        except LinkError:
            return False
        self._handed_over = wanted
        return True

    def _do_without(self, place: OpenPlace) -> None:
        """This process commits by itself."""
        self._session.shared.mirror = self._handed_over = None
        with contextlib.suppress(LinkError):
            self._remote.leave()
        self._session.lock_rank(place)

    def _mirror(
        self,
        layout: Callable[[Sequence[int]], MirrorLayout],
        slots: int,
        meta_bytes: int,
        blob_bytes: Sequence[int],
    ) -> Mirror:
        """The mirror that is there, or a new one with room to grow: histories do.

        Raises MirrorFullError when what has come since the call began does not fit into memory.
        """
        known = self._session.shared.mirror
        made = layout(blob_bytes)
        needed, there = needed_bytes(made, slots), available_bytes()
        if blob_bytes and (known is None or known.layout != made) and needed > there - _SPARE_SHARE * there:
            raise MirrorFullError(f"that takes {size(needed)} and {size(there)} are free")
        if known is None or known.layout != made or known.meta_bytes < meta_bytes:
            known = Mirror.make(made, slots, SharedMemory.create, max(META_BYTES, 2 * meta_bytes))
            self._session.shared.mirror = known
        return known

    def _tell_lacking(self, why: str) -> None:
        self._session.warn(
            f"the arrays and tensors that callbacks and other objects hold are not kept in memory: {why}; "
            "a restart begins with the script's own values"
        )

    def _commit_alone(self, settings: Settings, place: OpenPlace) -> Saver:
        """The supervisor is gone: this process commits what there is, once the saver has ended."""
        self._session.lock_rank(place)
        return self._session.inline_saver(settings, place)
