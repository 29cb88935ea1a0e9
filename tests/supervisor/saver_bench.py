"""A saver of the supervisor's between children that a test plays and a listener that remembers."""

from __future__ import annotations

import os
from pathlib import Path

from played import OPENED, Children, asked_steps
from slots import config_of

from supervisor.checkpointing.saver_child import CommitRequest, SaverChild

CONFIG = config_of(Path("/run"))


OTHER = config_of(Path("/other"))


class SaverBench:
    """A saver, its children, and what it tells. ``told`` are (step, file or error)."""

    def __init__(self):
        self.children = Children()
        self.watched = []
        self.told = []
        self.settlings = 0
        self.openings = []
        self.saver = SaverChild(self.children.spawn, self)

    # The saver's listener

    def watch(self, child):
        self.watched.append(child)

    def unwatch(self, child):
        self.watched.remove(child)

    def saved(self, outcome):
        self.told.append((outcome.save.slot.step, outcome.error or outcome.file))

    def settled(self):
        assert not self.saver.busy
        self.settlings += 1

    # What the loop does, and what a worker asks for

    def open(self, config=CONFIG):
        self.saver.open(config, lambda error, remarks: self.openings.append(error or list(remarks)))

    def opened(self, config=CONFIG):
        """Opens a store, and its child answers."""
        self.open(config)
        self.answer(OPENED)
        return self

    def answer(self, message):
        self.children.last.say(message)
        self.saver.on_message()

    def die(self):
        """The child dies, and the loop hears of it as it does: of the link, or of the end, first."""
        child = self.children.last
        child.die()
        self.saver.on_message()
        self.saver.on_end()

    def hold(self, mirror):
        self.saver.hold(os.dup(mirror.memory.descriptor))
        return self.saver.mirror

    def commit(self, mirror, slot, **why):
        self.saver.commit(CommitRequest(mirror, slot, 1, **{"reason": "schedule", "failure": False, **why}))

    @property
    def asked(self):
        return asked_steps(self.children.last)
