"""A ``fit`` whose callbacks change what is trained in every hook, and fail in many: hooks.py FOLDER [plain].

Each trouble comes once (a file remembers it), and none at all with ``plain``. Every event is a line of a file
in FOLDER: the process, the callback, the hook, and the counters that it was given.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model
from small import SmallNetwork, dataset

FOLDER = Path(sys.argv[1])
PLAIN = "plain" in sys.argv[2:]
CONTEXT = ("mode", "deterministic")
HOOKS = ("begin", "epoch_begin", "step_begin", "step_end", "epoch_end", "end")


def trouble(name):
    """Whether this trouble is due: the first time that somebody asks for it."""
    mark = FOLDER / name
    if PLAIN or mark.exists():
        return False
    mark.touch()
    return True


def note(callback, hook, run_context):
    given = run_context.original_args()
    counters = [given.get(name) for name in ("mode", "cur_epoch_num", "cur_step_num", "batch_num")]
    # Begin hooks run before the state is put in, where a call goes on.
    context = [] if "begin" in hook and "step" not in hook else [ms.get_context(name) for name in CONTEXT]
    with open(FOLDER / ("plain" if PLAIN else "events"), "a") as out:
        print(json.dumps([os.getpid(), type(callback).__name__, hook, *counters, *context]), file=out)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def scale(parameter, factor):
    ms.ops.assign(parameter, ms.Tensor(parameter.asnumpy() * np.float32(factor)))


class Hooks(Callback):
    """Of the newer names; with a state of its own."""

    def __init__(self):
        super().__init__()
        self.epochs = 0
        self.opened = None

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]

    def on_train_begin(self, run_context):
        note(self, "on_train_begin", run_context)
        scale(network.second.weight, 1.5)
        np.random.rand()

    def on_train_epoch_begin(self, run_context):
        note(self, "on_train_epoch_begin", run_context)
        self.epochs += 1
        self.opened = run_context.original_args().cur_epoch_num
        scale(optimizer.learning_rate, 0.5)
        np.random.rand(self.epochs)
        if (FOLDER / "evaluation").exists() and (trouble("begin 1") or trouble("begin 2")):
            raise TypeError("the beginning fails")

    def on_train_step_begin(self, run_context):
        note(self, "on_train_step_begin", run_context)
        if run_context.original_args().cur_step_num == 12 and trouble("torn"):
            scale(network.first.weight, 2)
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError("in the middle of a step")

    def on_train_step_end(self, run_context):
        note(self, "on_train_step_end", run_context)
        if run_context.original_args().cur_step_num == 1:
            # As a library that builds a context of its own.
            ms.set_context(mode=ms.GRAPH_MODE)
            ms.set_deterministic(True)

    def on_train_epoch_end(self, run_context):
        note(self, "on_train_epoch_end", run_context)
        assert self.opened == run_context.original_args().cur_epoch_num
        scale(network.first.bias, 1 + np.random.rand() + self.epochs)

    def on_train_end(self, run_context):
        note(self, "on_train_end", run_context)
        scale(network.first.weight, 0.5)
        if trouble("end"):
            kill()

    def on_eval_begin(self, run_context):
        note(self, "on_eval_begin", run_context)
        if trouble("evaluation"):
            kill()

    def on_eval_end(self, run_context):
        note(self, "on_eval_end", run_context)


def noting(name):
    return lambda self, run_context: note(self, name, run_context)


# ``fit`` refuses the older names in the very class of a callback; those of a base it runs.
Older = type("Older", (type("OldHooks", (Callback,), {name: noting(name) for name in HOOKS}),), {})

ms.set_context(mode=ms.PYNATIVE_MODE)
ms.set_seed(5)
np.random.seed(5)
network = SmallNetwork()
optimizer = nn.Adam(network.trainable_params(), 1e-2)
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
model = Model(network, loss, optimizer, metrics={"accuracy": Accuracy()})
model.fit(2, dataset(), dataset(), callbacks=[Hooks(), Older()], dataset_sink_mode=False)
digest = hashlib.sha256()
for cell in (network, optimizer):
    for parameter in cell.get_parameters():
        digest.update(parameter.asnumpy().tobytes())
digest.update(np.random.bytes(8))
print("FINAL", digest.hexdigest(), flush=True)
