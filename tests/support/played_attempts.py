"""A callback as users write them, and attempts that hold it, without a training."""

from __future__ import annotations

import json
import logging
import time
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore.train import Callback

from resilient.state.finished_calls import FinishedCalls
from resilient.state.side_state import SideState
from resilient.state.snapshot import SECTION_KEPT, Progress, Recovered, TensorValue

PROGRESS = Progress(call=0, call_step=3, steps_per_epoch=8)


class BestSoFar(Callback):
    """As users write them."""

    shared: ClassVar = []
    calls = 0

    def __init__(self, patience=3, best=float("inf"), history=None):
        super().__init__()
        self.patience, self.best = patience, best
        self.history = [] if history is None else history
        self.weights = None
        self.by_epoch = {}
        self.began = time.time()
        self.log, self.hook, self.network = logging.getLogger("x"), print, None

    def train(self):
        """What a training does to it."""
        self.best = np.float32(0.25)
        self.history += [0.5, 0.25]
        self.by_epoch[1] = {"loss": ms.Tensor(0.5), "when": [1, (2, 3)]}
        self.weights = [np.arange(1000, dtype=np.float32)]
        self.shared.append(1)
        type(self).calls += 1
        self.added = {"later"}
        return self


class Process:
    """One attempt: its own memory of beginnings, and what it has complained of."""

    def __init__(self, *callbacks, things=()):
        self.callbacks, self.things = callbacks, list(things)
        self.said = []
        self.side_state = SideState(self.said.append)
        self.side_state.meet([*callbacks, *(thing for _, thing in self.things)], {})

    def capture(self, trained=None, ended=None):
        kept = self.side_state.capture(self.callbacks, self.things, trained or {}, ended or FinishedCalls())
        document = json.loads(json.dumps(kept.document))
        tensors = {
            (SECTION_KEPT, str(n)): TensorValue("UInt8", (blob.size,), memoryview(blob.tobytes()))
            for n, blob in enumerate(kept.blobs)
        }
        return Recovered(tensors, document, PROGRESS, "a test")

    def restore(self, recovered, trained=None):
        log = FinishedCalls()
        self.side_state.restore(recovered, self.callbacks, self.things, trained or {}, log)
        return self


def next_attempt(recovered, *callbacks):
    """The classes of a new process are as they were written."""
    BestSoFar.shared, BestSoFar.calls = [], 0
    process = Process(*callbacks)
    return process.restore(recovered)
