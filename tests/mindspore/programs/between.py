"""Three calls; between them weights are changed and numbers are drawn: between.py KIND DEATHS FOLDER.

It dies in a step of a call (``2.5``, counted from 0), or behind a call (``behind 1``). The last line printed
is a hash of weights, of optimizer states and of the numbers.
"""

import hashlib
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from deaths import Deaths
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model
from small import SmallNetwork, dataset

KIND = sys.argv[1]
deaths = Deaths(sys.argv[2], Path(sys.argv[3]))
IS_NOISY = KIND in ("last step", "twice")


class Drawing(Callback):
    """Draws at every step, but not from what a pipeline's thread draws from at the same time; dies there."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def on_train_step_end(self, run_context):
        random.random()
        if not IS_NOISY:
            np.random.random()
        deaths.at(f"{self.call}.{run_context.original_args().cur_step_num}")


def noisy(row):
    return row + np.random.standard_normal(row.shape).astype(np.float32)


class Counting(SmallNetwork):
    """What it computes depends on how often it was called."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def construct(self, x):
        self.count += 1
        return super().construct(x) * (1.0 + 0.125 * self.count)


network = Counting() if KIND == "counts" else SmallNetwork()
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
model = Model(network, loss, nn.Adam(network.trainable_params(), 1e-2), metrics={"accuracy": Accuracy()})
drawn = []
for call in range(3):
    rows = dataset()
    if IS_NOISY:
        rows = rows.map(noisy, ["x"], num_parallel_workers=1)
    model.train(1, rows, callbacks=[Drawing(call)])
    deaths.at(f"behind {call}")
    if KIND == "changes":
        for parameter in network.trainable_params():
            ms.ops.assign(parameter, parameter * 0.5)
    if KIND == "evaluates":
        drawn.append(model.eval(dataset().map(noisy, ["x"], num_parallel_workers=1))["accuracy"])
    drawn += [random.random(), np.random.random()]

digest = hashlib.sha256(repr(drawn).encode())
for parameter in model.train_network.get_parameters():
    digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest())
