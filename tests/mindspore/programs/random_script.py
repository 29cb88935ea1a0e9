"""A script that is made up at random, and dies: random_script.py SEED DEATHS FOLDER.

It trains networks in turn, by Model and by loops of its own, makes new ones, evaluates, draws, changes
weights, and decides by what it finds. All of that comes from SEED alone. DEATHS is never, or up to three of
SIGKILL, SIGTERM, exception, exit with commas between: each at a random step. The last line printed is a hash
of every network, of every optimizer, and of what was drawn.
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
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Accuracy, Callback, EarlyStopping, History, LossMonitor, Model, ReduceLROnPlateau
from small import STEPS_PER_EPOCH, Network

import resilient
from resilient import CheckpointMonitor

SEED, DEATHS, FOLDER = int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
# What the script is; nothing that it draws while it runs comes from here.
plan = random.Random(SEED)
ms.set_context(mode=plan.choice([ms.GRAPH_MODE, ms.GRAPH_MODE, ms.PYNATIVE_MODE]))
digest = hashlib.sha256()
done = 0


class Die(Callback):
    """Counts every completed step of the process, and dies after one of them."""

    def on_train_step_end(self, run_context):
        count()


def count():
    global done
    done += 1
    number = len(list(FOLDER.glob("died_*")))
    if number == len(DEATHS) or DEATHS[number] == "never" or done != fatal[number]:
        return
    (FOLDER / f"died_{number}").touch()
    if DEATHS[number] == "exception":
        raise RuntimeError(f"failure {number} of the script's own")
    if DEATHS[number] == "exit":
        os._exit(9)
    os.kill(os.getpid(), getattr(signal, DEATHS[number]))


class Work:
    """One network with what it takes to train it in either way."""

    def __init__(self):
        self.network = Network(frozen=plan.random() < 0.2)
        self.loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        weights = self.network.trainable_params()
        make = plan.choice([nn.Adam, nn.Momentum, nn.AdamWeightDecay])
        self.optimizer = make(weights, 1e-2, 0.9) if make is nn.Momentum else make(weights, 1e-2)
        self.model = Model(self.network, self.loss, self.optimizer, metrics={"accuracy": Accuracy()})
        self.step_of = ms.value_and_grad(self.forward, None, weights)
        self.noisy = plan.random() < 0.4
        self.rows = rows(self.noisy)

    def forward(self, x, y):
        return self.loss(self.network(x), y)


def noisy(row):
    return row + np.random.standard_normal(row.shape).astype(np.float32) * 0.1


def rows(is_noisy):
    generator = np.random.default_rng(plan.randrange(100))
    count = 2 * STEPS_PER_EPOCH
    images = generator.standard_normal((count, 4)).astype(np.float32)
    labels = generator.integers(0, 3, count).astype(np.int32)
    found = ds.NumpySlicesDataset((images, labels), ["x", "y"], shuffle=plan.random() < 0.5)
    if is_noisy:
        found = found.map(noisy, ["x"], num_parallel_workers=1)
    return found.batch(2)


def train(work):
    callbacks = [
        Die(),
        *plan.sample(
            [EarlyStopping("loss", patience=1), ReduceLROnPlateau("loss", 0.5, 1), History(), LossMonitor()],
            1,
        ),
    ]
    if plan.random() < 0.4:
        directory = str(FOLDER / plan.choice("ab"))
        callbacks.append(CheckpointMonitor(directory=directory, save_checkpoint_steps=plan.randrange(2, 9)))
    epochs = plan.randrange(1, 3)
    # Two pipelines that draw from one stream at a time do not give the same twice.
    if not work.noisy and plan.random() < 0.5:
        work.model.fit(epochs, work.rows, work.rows, callbacks=callbacks)
    else:
        work.model.train(epochs, work.rows, callbacks=callbacks)


def loop(work):
    epochs = plan.randrange(1, 3)
    with resilient.training(work.network, work.optimizer) as run:
        for x, y in run.steps(work.rows, epochs):
            work.optimizer(work.step_of(x, y)[1])
            count()


def make(work):
    works.append(Work())


def evaluate(work):
    result = work.model.eval(work.rows)["accuracy"]
    digest.update(repr(result).encode())
    if result > 0.4:
        train_more(work, plan.randrange(2))


def train_more(work, epochs):
    if epochs:
        work.model.train(epochs, work.rows, callbacks=[Die()])


def draw(work):
    digest.update(repr((random.random(), np.random.random())).encode())


def change(work):
    for parameter in work.network.trainable_params():
        ms.ops.assign(parameter, parameter * 0.5 + float(np.random.random()))


works = [Work() for _ in range(plan.randrange(1, 3))]
known = [train, train, train, train, loop, loop, evaluate, evaluate, draw, change, make]
actions = [plan.choice(known) for _ in range(plan.randrange(2, 7))]
most = 8 + 12 * sum(action in (train, loop) for action in actions)
fatal = [plan.randrange(1, most // (number + 1)) for number in range(3)]
for action in [train, *actions]:
    action(plan.choice(works))

for work in works:
    for cell in (work.network, work.optimizer):
        for parameter in cell.get_parameters():
            digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest(), [action.__name__ for action in actions])
