"""Two loops of one's own; the execution mode flips in the first step of the first: modes.py FOLDER [plain].

It is killed in each of them once, and says before each step in which mode it is.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import mindspore as ms
from mindspore import nn
from small import SmallNetwork, dataset

import resilient

FOLDER = Path(sys.argv[1])

ms.set_context(mode=ms.PYNATIVE_MODE, jit_syntax_level=ms.LAX)
ms.set_seed(5)
network = SmallNetwork()
optimizer = nn.Adam(network.trainable_params(), 1e-2)
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")


def forward(x, y):
    return loss(network(x), y)


step = ms.value_and_grad(forward, None, optimizer.parameters)


def train(number):
    with resilient.training(network, optimizer) as run:
        for x, y in run.steps(dataset(), 1):
            mark = FOLDER / f"killed {number}"
            if "plain" not in sys.argv and run.step == 8 * number + 5 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            print(f"step {run.step} in mode {ms.get_context('mode')}", flush=True)
            optimizer(step(x, y)[1])
            if run.step == 0:
                ms.set_context(mode=ms.GRAPH_MODE)


train(0)
print(f"between in mode {ms.get_context('mode')}", flush=True)
train(1)
