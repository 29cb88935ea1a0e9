"""Keepers: where the newest step boundary of a training call is held, and who has it committed.

ShadowKeeper    a second copy in the process's own memory; this process commits, or has it committed
MirrorKeeper    shared memory that outlives the process (``mirror_keeper``)
"""

from __future__ import annotations

from typing import Protocol

from resilient.composition import Boundary, Composer
from resilient.saving import Saver
from resilient.state import capture


class Keeper(Protocol):
    """Holds boundaries, and sees to it that they become checkpoints.

    ``guards`` tells whether a failure can be saved at all.
    """

    @property
    def guards(self) -> bool: ...

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

    def commit(self, boundary: Boundary, reason: str) -> None:
        """Makes a checkpoint of the boundary that was held last, and that the live values still are."""
        ...

    def commit_failure(self, boundary: Boundary, reason: str, *, live: bool) -> int:
        """Makes a failure checkpoint, durably: of ``boundary``, if the live values still are it, and else of
        the newest one that is held. Returns the step that is safe now, 0 for none."""
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
        self._shadow = capture.Shadow(composer.layout.parameters) if guards else None

    def wants(self, *, is_step: bool) -> bool:
        return True

    def accepts(self) -> bool:
        return True

    def hold(self, boundary: Boundary) -> None:
        if self._shadow is not None:
            self._shadow.refresh()

    def matches(self, boundary: Boundary) -> bool:
        return self._shadow is not None and self._shadow.matches()

    def commit(self, boundary: Boundary, reason: str) -> None:
        self._saver.save(self._composer.snapshot(boundary, reason, failure=False, shadow=None))

    def commit_failure(self, boundary: Boundary, reason: str, *, live: bool) -> int:
        assert self._shadow is not None
        # A copy that was interrupted is no boundary; the live values still are one then.
        shadow = None if live or not self._shadow.whole else self._shadow
        self._saver.wait()
        self._saver.save(self._composer.snapshot(boundary, reason, failure=True, shadow=shadow))
        return boundary.progress.step if self._saver.wait() else 0

    def wait(self) -> bool:
        return self._saver.wait()
