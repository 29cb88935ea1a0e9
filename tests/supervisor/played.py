"""What the tests of the supervisor's saver share: children that are played, and listeners that remember."""

from __future__ import annotations

import os

from slots import rank_mirror, write

from chaos.played_worker import PlayedWorker
from resilient.wire.messages import CommitSlot, SaverReady, SlotCommitted

OPENED = SaverReady()


def committed(step, error="", **more):
    """What a saver answers to a commit."""
    path = "" if error else f"/run/checkpoint/rank_0/step_{step}.ckpt"
    return SlotCommitted(error, path=path, **{"seconds": 0.5, "epoch": 1, **more})


class Children:
    """Spawns children that a test plays; ``broken`` counts how many of the next ones cannot be started."""

    def __init__(self):
        self.all = []
        self.configs = []
        self.broken = 0

    def spawn(self, config):
        if self.broken:
            self.broken -= 1
            raise OSError(11, "Resource temporarily unavailable")
        self.configs.append(config)
        self.all.append(PlayedWorker())
        return self.all[-1]

    @property
    def last(self):
        return self.all[-1]

    def clear_away(self):
        for child in self.all:
            child.die()
            if not child.finished:
                child.finish()


def mirror_with(*steps, slots=3):
    """A rank's mirror that holds these steps, and the slot of the last."""
    mirror = rank_mirror(slots=slots)
    slot = None
    for step in steps:
        slot = write(mirror, step)
    return mirror, slot


def asked_steps(child):
    """The steps that a child has been asked to commit since the last look; their descriptors are closed."""
    steps = []
    while (received := child.hear()) is not None:
        message, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, CommitSlot):
            steps.append(message.slot.step)
    return steps


def is_pinned(mirror, number):
    return mirror._is_pinned(number)


def fail(part, method, fault, *, lasting):
    """From now on, or once, calling this method fails."""
    real = getattr(part, method)

    def failing(*arguments, **named):
        if not lasting:
            setattr(part, method, real)
        raise fault

    setattr(part, method, failing)
