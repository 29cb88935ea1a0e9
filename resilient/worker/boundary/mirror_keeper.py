"""Holds boundaries in the mirror, and has its slots committed by the saver.

A boundary costs one copy of the state. When the supervisor is gone, or the script has closed the link to it,
there is nobody to ask: then this process commits by itself, as it would without a mirror.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient.errors import LinkError, MirrorError, MirrorFullError, NoSlotError, ResilientError
from resilient.policy.pace import Pace
from resilient.saving import slots
from resilient.saving.in_process import Saver, Snapshot
from resilient.saving.remote import MirrorMeans
from resilient.state.snapshot import SECTION_KEPT
from resilient.wire.heartbeat import Phase
from resilient.wire.mirror import Mirror, Slot

if TYPE_CHECKING:
    from resilient.worker.boundary.composition import Boundary, Composer


@dataclass(frozen=True)
class _Held:
    """Where a boundary lies in memory."""

    boundary: Boundary
    mirror: Mirror
    slot: Slot


@dataclass(frozen=True)
class _Asked:
    """A commit that was asked for: of which slot of which mirror, and why."""

    mirror: Mirror
    slot: Slot
    reason: str
    failure: bool

    def snapshot(self) -> Snapshot:
        return slots.snapshot(self.mirror, self.slot, self.reason, failure=self.failure)


class _NoSaver:
    """Saves nothing: there is nobody who could."""

    def save(self, snapshot: Snapshot) -> None:
        pass

    def wait(self) -> bool:
        return False


class MirrorKeeper:
    """Holds boundaries in shared memory. With ``waits`` a save is waited for at the boundary."""

    guards = True

    def __init__(self, composer: Composer, means: MirrorMeans, every: int | None, *, waits: bool) -> None:
        self._composer = composer
        self._means = means
        self._waits = waits
        self._pace = Pace(means.clock, every)
        self._live = composer.live()
        self._mirror: Mirror | None = None
        self._held: _Held | None = None
        self._asked: _Asked | None = None
        self._safe_step = 0
        self._alone: Saver | None = None

    @property
    def held(self) -> Boundary | None:
        held = self._held
        return held.boundary if held is not None and held.mirror.is_still(held.slot) else None

    def wants(self, *, is_step: bool) -> bool:
        heard = self._remotely(self._means.remote.listen)
        if heard is None and self._asked is not None:
            self._commit_alone()
        elif heard and not self._means.remote.busy:
            self._asked = None
        return self._pace.wants(is_step=is_step)

    def hold(self, boundary: Boundary) -> None:
        began_s = self._means.clock.monotonic()
        try:
            mirror, slot = self._write(boundary)
            self._held = _Held(boundary, mirror, slot)
        except (OSError, MirrorError, MemoryError) as error:
            # What was held before still is. No descriptor, no memory: none of the training's doing.
            self._means.failed(boundary.progress.step, f"it cannot be copied: {error}")
        self._pace.copied(self._means.clock.monotonic() - began_s)

    def accepts(self) -> bool:
        # What comes while a commit is under way waits for a boundary after it: the newer state is better.
        return self._waits or self._alone is not None or not self._means.remote.busy

    def matches(self, boundary: Boundary) -> bool:
        if self._held is None or self._held.boundary is not boundary:
            return False
        mirror, number = self._held.mirror, self._held.slot.number
        areas = [area for area in mirror.layout.areas if area.section != SECTION_KEPT]
        return self._live.are_in([mirror.view(number, area) for area in areas])

    def commit(self, boundary: Boundary, reason: str) -> bool:
        if self._held is None or self._held.boundary is not boundary:
            return False
        try:
            mirror, slot = self._place_of(self._held, reason)
        except OSError as error:
            self._means.failed(boundary.progress.step, f"it cannot be merged: {error}")
            return False
        self._ask(_Asked(mirror, slot, reason, False), boundary)
        if self._waits or reason != "schedule":
            self.wait()
        return True

    def commit_failure(self, boundary: Boundary, reason: str, *, live: bool) -> int:
        if live:
            self.hold(boundary)
        held = self._held
        if held is None:
            return 0
        step = held.boundary.progress.step
        if step <= self._safe_step:
            return 0
        self._ask(_Asked(held.mirror, held.slot, reason, True), held.boundary)
        if not self._wait(self._means.remote.wait_while_awake):
            return 0
        self._safe_step = step
        return step

    def wait(self) -> bool:
        return self._wait(self._means.remote.wait)

    def _wait(self, remotely: Callable[[], bool]) -> bool:
        succeeded = self._remotely(remotely)
        if succeeded is None:
            return self._commit_alone()
        self._asked = None
        return succeeded

    def _place_of(self, held: _Held, reason: str) -> tuple[Mirror, Slot]:
        """Where a scheduled checkpoint of the boundary that is held lies in memory. Raises OSError."""
        if not self._composer.merged():
            return held.mirror, held.slot
        # What automatic parallel has split comes together in memory of its own.
        snapshot = self._composer.snapshot(held.boundary, reason, failure=False, shadow=None)
        return slots.mirror_of(snapshot, held.mirror.layout.run_id, held.mirror.layout.rank)

    # Asking

    def _ask(self, asked: _Asked, boundary: Boundary) -> None:
        remote, own = self._means.remote, asked.mirror is self._mirror

        def ask() -> bool:
            if asked.failure:
                remote.wait_while_awake()
            else:
                remote.wait()
            if remote.busy:
                return False
            if own:
                asked.mirror.pin(asked.slot.number)
            remote.ask(asked, boundary.progress.epoch, None if own else asked.mirror)
            return True

        self._asked = asked
        if self._remotely(ask) is None:
            # Now: a script that has closed our link goes on training, and a later save would take its place.
            self._commit_alone()

    def _remotely(self, act: Callable[[], bool]) -> bool | None:
        """What comes of asking the supervisor; None when there is none any more."""
        if self._alone is None:
            try:
                return act()
            except LinkError:
                self._alone = self._saver_of_our_own()
                if self._mirror is not None:
                    # Nobody else does that any more.
                    self._mirror.unpin_all()
        return None

    def _saver_of_our_own(self) -> Saver:
        try:
            return self._means.alone()
        except ResilientError as error:
            # A saver whose disk hangs does not let go of the lock. The training goes on, and hears of it.
            step = self._held.boundary.progress.step if self._held is not None else 0
            self._means.failed(step, f"the supervisor is gone, and {error}")
            return _NoSaver()

    def _commit_alone(self) -> bool:
        """Nobody answers any more. What was asked for and not answered is committed by this process."""
        assert self._alone is not None
        asked, self._asked = self._asked, None
        if asked is not None:
            self._alone.save(asked.snapshot())
        return self._alone.wait()

    # Copying

    def _write(self, boundary: Boundary) -> tuple[Mirror, Slot]:
        mirror, meta = self._room(boundary)
        new = mirror is not self._mirror
        slot = self._write_into(mirror, boundary, meta)
        self._mirror = mirror
        if new:
            # Only now: until then the mirror that was there holds the newest boundary.
            self._remotely(lambda: self._means.remote.hand_over(mirror))
            # While the first step compiles; else the next boundaries would have to wait for it.
            pages = threading.Thread(target=mirror.fetch_pages, name="resilient-pages", daemon=True)
            with contextlib.suppress(RuntimeError):
                pages.start()
        return mirror, slot

    def _room(self, boundary: Boundary) -> tuple[Mirror, bytes]:
        """A mirror that this boundary fits into, and its meta; where memory is short, without its blobs."""
        try:
            return self._fitting(boundary)
        except MirrorFullError as error:
            if not self._composer.blobs(boundary):
                raise
            self._composer.carries_blobs = False
            self._means.lacking(str(error))
            return self._fitting(boundary)

    def _fitting(self, boundary: Boundary) -> tuple[Mirror, bytes]:
        meta = self._composer.header(boundary).encode()
        sizes = [blob.size for blob in self._composer.blobs(boundary)]
        mirror = self._mirror
        if mirror is None or not mirror.fits(meta) or _blob_bytes(mirror) != sizes:
            mirror = self._means.make(len(meta), sizes)
        return mirror, meta

    def _write_into(self, mirror: Mirror, boundary: Boundary, meta: bytes) -> Slot:
        step, blobs = boundary.progress.step, self._composer.blobs(boundary)

        def fill(number: int) -> None:
            self._live.copy_to([mirror.view(number, area) for area in mirror.layout.areas], blobs)

        try:
            return mirror.write(step, meta, fill)
        except NoSlotError:
            # With two slots: one is being committed, the other holds the newest boundary.
            with self._means.heartbeat.during(Phase.SAVING):
                self.wait()
            return mirror.write(step, meta, fill)


def _blob_bytes(mirror: Mirror) -> list[int]:
    return [area.size_bytes for area in mirror.layout.areas if area.section == SECTION_KEPT]
