"""A training that takes milliseconds: eight steps per epoch, a dense layer, Adam."""

from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Callback, Model

STEPS_PER_EPOCH = 8


class SmallNetwork(nn.Cell):
    """Two layers; the first can be frozen."""

    def __init__(self, frozen=False):
        super().__init__()
        self.first = nn.Dense(4, 5)
        self.second = nn.Dense(5, 3)
        for parameter in self.first.get_parameters():
            parameter.requires_grad = not frozen

    def construct(self, x):
        return self.second(ms.ops.relu(self.first(x)))


def dataset():
    """Batches of two out of rows that are always the same."""
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((2 * STEPS_PER_EPOCH, 4)).astype(np.float32)
    labels = generator.integers(0, 3, len(rows)).astype(np.int32)
    return ds.NumpySlicesDataset((rows, labels), ["x", "y"], shuffle=False).batch(2)


def model(network=None):
    """A model that is ready to be trained."""
    network = network or SmallNetwork()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    return Model(network, loss, nn.Adam(network.trainable_params(), 1e-2))


class At(Callback):
    """Does something at the end of one step."""

    def __init__(self, step, action):
        super().__init__()
        self.step = step
        self.action = action

    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == self.step:
            self.action()


def raising(error):
    """An action that raises this error."""

    def action():
        raise error

    return action


def values(cell):
    """Every parameter's values by name."""
    return {p.name: p.asnumpy().copy() for p in cell.get_parameters()}


def loaded(path, **key):
    """What stock MindSpore reads out of a file, by name."""
    return {name: p.asnumpy() for name, p in ms.load_checkpoint(str(path), **key).items()}


def files(folder, pattern="*.ckpt"):
    """Names in a folder, sorted."""
    return sorted(path.name for path in Path(folder).glob(pattern))


def meta(folder):
    return json.loads((Path(folder) / "meta.json").read_text())


def assert_equal(found, wanted):
    """Bit for bit, for every name in ``wanted``."""
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
