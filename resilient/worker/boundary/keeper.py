"""Keepers: where the newest step boundary of a training call is held, and who has it committed.

ShadowKeeper    a second copy in the process's own memory; this process commits, or has it committed
MirrorKeeper    shared memory that outlives the process (``mirror_keeper``)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from resilient.saving.in_process import Saver

if TYPE_CHECKING:
    from resilient.worker.boundary.composition import Boundary, Composer


class Keeper(Protocol):
    """Holds boundaries, and sees to it that they become checkpoints.

    ``guards`` tells whether a failure can be saved at all.
    """

    @property
    def guards(self) -> bool: ...

    @property
    def held(self) -> Boundary | None:
        """The newest boundary that is held whole."""
        ...

    def wants(self, *, is_step: bool) -> bool:
        """Whether this boundary, a step's or an epoch's end, is to be observed and held."""
        ...

    def accepts(self) -> bool:
        """Whether a scheduled checkpoint can be made at this boundary; else the next one is asked again."""
        ...

    def hold(self, boundary: Boundary) -> None:
        """The live values are this boundary: keeps them where the next step cannot reach them."""
        ...

    def matches(self, boundary: Boundary) -> bool:
        """Whether this boundary is held, and the live values still are it, bit for bit."""
        ...

    def commit(self, boundary: Boundary, reason: str) -> bool:
        """Makes a checkpoint of the boundary that was held last, and that the live values still are.

        False where it could not be held, or merged; the keeper has told why.
        """
        ...

    def commit_failure(self, boundary: Boundary, reason: str, *, live: bool) -> int:
        """Makes a failure checkpoint, durably: of ``boundary``, which the live values are, or which is held.

        Where the live values cannot be held, it is made of the newest boundary that is. Returns the step that
        is safe now, 0 for none.
        """
        ...

    def wait(self) -> bool:
        """Returns when nothing is being committed: whether the last commit succeeded."""
        ...


class ShadowKeeper:
    """Holds the newest boundary in a shadow, if failures are to be saved; it costs one copy a step."""

    def __init__(self, composer: Composer, saver: Saver, *, guards: bool) -> None:
        self._composer = composer
        self._saver = saver
        self.guards = guards
        self.held: Boundary | None = None
        self._shadow = composer.shadow() if guards else None

    def wants(self, *, is_step: bool) -> bool:
        return True

    def accepts(self) -> bool:
        return True

    def hold(self, boundary: Boundary) -> None:
        if self._shadow is not None:
            # A copy that is interrupted is no boundary.
            self.held = None
            self._shadow.refresh(self._composer.blobs(boundary))
            self.held = boundary

    def matches(self, boundary: Boundary) -> bool:
        return self._shadow is not None and self.held is boundary and self._shadow.matches()

    def commit(self, boundary: Boundary, reason: str) -> bool:
        self._saver.save(self._composer.snapshot(boundary, reason, failure=False, shadow=None))
        return True

    def commit_failure(self, boundary: Boundary, reason: str, *, live: bool) -> int:
        assert live or self.held is boundary
        shadow = None if live else self._shadow
        self._saver.wait()
        self._saver.save(self._composer.snapshot(boundary, reason, failure=True, shadow=shadow))
        return boundary.progress.step if self._saver.wait() else 0

    def wait(self) -> bool:
        return self._saver.wait()
