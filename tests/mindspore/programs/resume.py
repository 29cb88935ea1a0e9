"""A training that dies: resume.py KIND DEATHS FOLDER. KIND says what is special about it.

The last line printed is a hash of the parameters, the optimizer's state and what the callbacks have seen.
"""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

if sys.argv[1] == "asked":
    import importlib.util

    # A question is no import: what is done to the modules once they are imported must still be done.
    found = [importlib.util.find_spec(name) for name in ("numpy", "mindspore")]
    assert None not in found

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from deaths import Deaths
from mindspore import dataset as ds
from mindspore import nn
from mindspore.dataset import vision
from mindspore.train import Callback, EarlyStopping, History, LambdaCallback, LossMonitor, Model
from small import STEPS_PER_EPOCH

KIND, FOLDER = sys.argv[1], Path(sys.argv[3])
deaths = Deaths(sys.argv[2], FOLDER)
EPOCHS = 3


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Dense(36, 7 if KIND == "wider" else 6)
        self.dropout = nn.Dropout(p=0.5 if KIND == "dropout" else 0.0)
        self.second = nn.Dense(7 if KIND == "wider" else 6, 3)

    def construct(self, x):
        return self.second(self.dropout(ms.ops.relu(self.first(self.flatten(x)))))


def noisy(image):
    return image + np.random.standard_normal(image.shape).astype(np.float32)


def dataset(shuffle=True, noise=KIND in ("noise", "both")):
    generator = np.random.default_rng(3)
    count = 4 * (STEPS_PER_EPOCH + (KIND == "longer"))
    images = generator.standard_normal((count, 6, 6, 1)).astype(np.float32)
    rows = ds.NumpySlicesDataset(
        (images, generator.integers(0, 3, count).astype(np.int32)), ["x", "y"], shuffle=shuffle
    )
    if KIND == "flips":
        rows = rows.map([vision.RandomHorizontalFlip(0.5), vision.RandomCrop(6, padding=2)], ["x"])
    if noise:
        rows = rows.map(noisy, ["x"], num_parallel_workers=1)
    if KIND == "workers":
        rows = rows.map(noisy, ["x"], num_parallel_workers=2)
    return rows.batch(4)


class Fatal(Callback):
    """Dies at the end of a step, or (``epoch 2``) of an epoch, when it has been evaluated."""

    def on_train_step_end(self, run_context):
        deaths.at(run_context.original_args().cur_step_num)

    def on_train_epoch_end(self, run_context):
        deaths.at(f"epoch {run_context.original_args().cur_epoch_num}")


class Mine(Callback):
    """Keeps a state of its own across attempts, by saying so: of NumPy's numbers, which come later."""

    def __init__(self):
        super().__init__()
        self.losses = []
        self.best = None

    def on_train_epoch_end(self, run_context):
        loss = run_context.original_args().net_outputs
        self.losses.append(float(loss.asnumpy()))
        self.best = loss.asnumpy().min() if self.best is None else min(self.best, loss.asnumpy().min())
        assert isinstance(self.best, np.float32)

    def state_dict(self):
        return {"losses": self.losses, "best": self.best}

    def load_state_dict(self, state):
        self.losses, self.best = list(state["losses"]), state["best"]


class Averaged(Callback):
    """Puts other weights in for what it does at an epoch's end, and dies with them.

    In place: after a ``set_data`` in graph mode an optimizer goes on with what was there before (2.10).
    """

    def on_train_epoch_end(self, run_context):
        trained = network.trainable_params()
        own = [parameter.asnumpy().copy() for parameter in trained]
        for parameter in trained:
            ms.ops.assign(parameter, ms.Tensor(np.full(parameter.shape, 123.0, np.float32)))
        if deaths.at(f"averaged {run_context.original_args().cur_epoch_num}"):
            raise AssertionError("the signal has been handled by now")
        for parameter, value in zip(trained, own, strict=True):
            ms.ops.assign(parameter, ms.Tensor(value))


network = Network()
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
model = Model(network, loss, nn.Adam(network.trainable_params(), 1e-2), metrics={"loss": nn.Loss()})
# Stops when the loss gets no better for two epochs running: what it has counted decides how long it trains.
stopping = EarlyStopping(monitor="eval_loss", patience=2, min_delta=10.0)
history, mine = History(), Mine()
seen = []
note = LambdaCallback(on_train_epoch_end=lambda context: seen.append(context.original_args().cur_epoch_num))
callbacks = [stopping, LossMonitor(4), history, mine, note, Fatal()]
if KIND == "averaged":
    callbacks.append(Averaged())
monitored = []
if KIND == "monitor":
    from resilient import CheckpointMonitor

    monitored = [CheckpointMonitor(save_checkpoint_steps=5, keep_checkpoint_max=2)]
model.fit(EPOCHS, dataset(), dataset(shuffle=False, noise=KIND == "both"), callbacks=[*monitored, *callbacks])

digest = hashlib.sha256()
for parameter in model.train_network.get_parameters():
    digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("losses", mine.losses, sorted(history.history), stopping.wait)
losses = hashlib.sha256(repr(mine.losses).encode()).hexdigest()[:8]
print("result", digest.hexdigest(), losses, seen, stopping.wait)
