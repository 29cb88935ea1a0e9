"""Three calls; between them weights are changed and numbers are drawn: between.py KIND DEATH FOLDER.

It dies in the last call, if it is to, or where KIND says: at the last step of the second one, or behind that
and in the last call. The last line printed is a hash of weights, of optimizer states and of the numbers.
"""

import hashlib
import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model
from small import At, SmallNetwork, dataset

KIND, DEATH, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
IS_NOISY = KIND in ("last step", "twice")


def die(number=0):
    mark = FOLDER / f"died_{number}"
    if DEATH == "never" or mark.exists():
        return
    mark.touch()
    if DEATH == "exception":
        raise RuntimeError("a failure of the script's own")
    os.kill(os.getpid(), signal.SIGKILL)


class Drawing(Callback):
    """Draws at every step, but not from what a pipeline's thread draws from at the same time."""

    def on_train_step_end(self, run_context):
        random.random()
        if not IS_NOISY:
            np.random.random()


def noisy(row):
    return row + np.random.standard_normal(row.shape).astype(np.float32)


network, loss = SmallNetwork(), nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
model = Model(network, loss, nn.Adam(network.trainable_params(), 1e-2), metrics={"accuracy": Accuracy()})
drawn = []
fatal_call, fatal_step = (1, 8) if KIND == "last step" else (2, 5)
for call in range(3):
    rows = dataset()
    if IS_NOISY:
        rows = rows.map(noisy, ["x"], num_parallel_workers=1)
    model.train(1, rows, callbacks=[Drawing(), *([At(fatal_step, die)] if call == fatal_call else [])])
    if KIND == "twice" and call == 1:
        die(1)
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
