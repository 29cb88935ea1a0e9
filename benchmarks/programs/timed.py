"""A training that says how long it took: what ``benchmarks/mirror.py`` runs with and without us.

    timed.py digits|wide STEPS

digits is the network and the data of ``examples/digits.py``; wide has 100 MB of parameters, and Adam twice as
much again. It prints ``training S``, the seconds from the end of step 20 (compiled, warm) to that of the last
step, and ``steps N``, how many these are.
"""

import sys
import time
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Callback, Model

WARM_STEPS = 20


class Wide(nn.Cell):
    """100 MB of float32 in three layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.SequentialCell(
            nn.Dense(64, 4872), nn.ReLU(), nn.Dense(4872, 4872), nn.ReLU(), nn.Dense(4872, 196)
        )

    def construct(self, x):
        return self.layers(x)


class Watch(Callback):
    """Looks at the clock."""

    def __init__(self, last):
        super().__init__()
        self._last = last
        self._began_s = 0.0

    def on_train_step_end(self, run_context):
        step = run_context.original_args().cur_step_num
        if step == WARM_STEPS:
            self._began_s = time.perf_counter()
        if step == self._last:
            # What was computed in the background belongs to it.
            float(run_context.original_args().net_outputs.asnumpy())
            print(f"training {time.perf_counter() - self._began_s:.6f}")
            print(f"steps {step - WARM_STEPS}")


def digits():
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    import digits as example

    training, _ = example.load(25)
    return example.Network(), training


def wide():
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((320, 64)).astype(np.float32)
    labels = generator.integers(0, 196, len(rows)).astype(np.int32)
    return Wide(), ds.NumpySlicesDataset((rows, labels), shuffle=True).batch(32)


def main():
    kind, steps = sys.argv[1], int(sys.argv[2])
    ms.set_context(mode=ms.GRAPH_MODE)
    network, training = digits() if kind == "digits" else wide()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    model = Model(network, loss, nn.Adam(network.trainable_params(), 1e-4))
    epochs = -(-steps // training.get_dataset_size())
    model.train(epochs, training, callbacks=[Watch(epochs * training.get_dataset_size())])


if __name__ == "__main__":
    main()
