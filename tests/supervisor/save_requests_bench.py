"""Commits between a worker and the loop, for the tests: children are played, what is told is remembered."""

from __future__ import annotations

import os
import selectors
from pathlib import Path

from played import OPENED, Children, asked_steps, mirror_with
from slots import GCM, config_of, write

from chaos.played_worker import PlayedWorker
from resilient.config import KeepPolicy, Sealing
from resilient.wire.messages import OpenStore, SaveSlot, StoreOpened, TakeMirror
from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.verdict.standing import Standing

RUN = config_of(Path("/run"), sealing=Sealing(), attempt=1)
STORE = OpenStore(Path("/run/there"), KeepPolicy(max_count=3), GCM)


class SaveRequestsBench:
    """Commits between one worker and the loop; ``said`` are (worker, message) as the loop has heard them."""

    def __init__(self):
        self.children = Children()
        self.selector = selectors.DefaultSelector()
        self.worker = PlayedWorker()
        self.said = []
        self.settlings = 0
        self.save_requests = SaveRequests(RUN, self.children.spawn, self.selector, self, self.settled)

    def heard(self, worker, message):
        self.said.append((worker, message))

    def settled(self):
        self.settlings += 1

    def ask(self, message, *mirrors):
        """The worker asks, as the loop hands it over."""
        assert self.hand_over(message, *mirrors)

    def hand_over(self, said, *mirrors):
        """Something that came over the worker's link; whether it was taken for a request."""
        return self.save_requests.hear(
            self.worker, said, [os.dup(mirror.memory.descriptor) for mirror in mirrors]
        )

    def save(self, slot, *mirrors, **why):
        values = {"epoch": 1, "reason": "schedule", "failure": False}
        self.ask(SaveSlot(slot, **{**values, **why}), *mirrors)

    def answer(self, message):
        """The child answers, and the loop's selector finds out."""
        self.children.last.say(message)
        self.turn()

    def turn(self):
        for key, _ in self.selector.select(0):
            if key.fd in self.selector.get_map():
                key.data()

    @property
    def answers(self):
        """What the worker has been told since the last look."""
        found = []
        while (received := self.worker.hear()) is not None:
            found.append(received[0])
        return found

    @property
    def asked(self):
        return asked_steps(self.children.last)

    def standing(self, durable_step, *, usable=True):
        """How far the run has come, with this step on disk."""
        return Standing(durable_step, self.save_requests.kept_step, usable)

    def kinds(self):
        return [type(message) for _, message in self.said]

    def get_ready(self):
        """The worker's store is open, and its mirror with the steps 1, 2, 3 handed over."""
        self.ask(STORE)
        self.answer(OPENED)
        self.mirror, _ = mirror_with()
        self.ask(TakeMirror(), self.mirror)
        self.slots = [write(self.mirror, step) for step in (1, 2, 3)]
        assert self.answers == [StoreOpened("")]
        assert self.asked == []

    def close(self):
        self.save_requests.close()
        self.selector.close()
        self.children.clear_away()
        self.worker.die()
