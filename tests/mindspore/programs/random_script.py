"""A script that is made up at random, and dies: random_script.py SEED DEATHS FOLDER.

It trains networks in turn, by Model and by loops of its own, with state outside of its networks and callbacks
that remember; it makes new ones, evaluates, draws, changes weights, and decides by what it finds. All of that
comes from SEED alone. DEATHS is never, or up to three of these with commas between, each at a random place of
a random step:

    SIGKILL, SIGTERM, exit   the process ends by it
    exception                the script's own, which nobody catches
    SIGTERM+exception        the signal is pending when the exception leaves
    exception+SIGTERM        the signal comes at a random instant while the exception flies
    exception+SIGKILL        the same

A loop dies in the middle of a step too, when one optimizer has updated its weights and the other one has not.
The last line printed has a hash of every network and optimizer and of what was drawn, and one for each other
thing that holds state.
"""

import hashlib
import os
import random
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model
from random_parts import BETWEEN_ROUNDS, CLASSES, FEATURES, Diary, Network, OwnDiary, stock_callbacks

import resilient
from resilient import CheckpointMonitor

SEED, DEATHS, FOLDER = int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
STEPS_PER_EPOCH = 8
# The plan is what the script is; nothing that it draws while it runs comes from there.
plan = random.Random(SEED)
ms.set_context(mode=plan.choice([ms.GRAPH_MODE, ms.GRAPH_MODE, ms.PYNATIVE_MODE]))
digest = hashlib.sha256()
traces = []
places = 0


class Die(Callback):
    """Dies in the middle of the callbacks, before or after those that remember."""

    def on_train_step_begin(self, run_context):
        may_die()

    def on_train_step_end(self, run_context):
        may_die()


def may_die():
    """Counts the places in which the process could die, and dies in one of them."""
    global places
    places += 1
    number = len(list(FOLDER.glob("died_*")))
    if number == len(DEATHS) or DEATHS[number] == "never" or places != fatal[number]:
        return
    (FOLDER / f"died_{number}").touch()
    die(DEATHS[number], number)


def die(way, number):
    if way == "exit":
        os._exit(9)
    first, _, second = way.partition("+")
    if first == "exception":
        if second:
            # At some instant of the way that the exception takes: through us, MindSpore, the script's end.
            delay_s = random.Random(f"{SEED}-{number}").uniform(0.0, 0.03)
            threading.Timer(delay_s, os.kill, (os.getpid(), getattr(signal, second))).start()
        raise RuntimeError(f"failure {number} of the script's own")
    os.kill(os.getpid(), getattr(signal, first))
    if second:
        raise RuntimeError(f"failure {number} of the script's own, with a signal pending")


class Work:
    """One network with what it takes to train it in either way."""

    def __init__(self):
        width = plan.choice([5, 5, 33, 4096])
        self.network = Network(width, frozen=plan.random() < 0.2, normed=plan.random() < 0.3)
        self.loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        self.weights = list(self.network.trainable_params())
        make = plan.choice([nn.Adam, nn.Momentum, nn.AdamWeightDecay])
        # A wide network diverges at the rate of a narrow one, and what is not a number ends a run.
        rate = 1e-2 if width < 100 else 1e-4
        self.optimizer = make(self.weights, rate, 0.9) if make is nn.Momentum else make(self.weights, rate)
        self.model = Model(self.network, self.loss, self.optimizer, metrics={"accuracy": Accuracy()})
        self.noisy = plan.random() < 0.4
        self.rows = rows(self.noisy)


def noisy(row):
    return row + np.random.standard_normal(row.shape).astype(np.float32) * 0.1


def rows(is_noisy):
    generator = np.random.default_rng(plan.randrange(100))
    count = 2 * STEPS_PER_EPOCH
    images = generator.standard_normal((count, FEATURES)).astype(np.float32)
    labels = generator.integers(0, CLASSES, count).astype(np.int32)
    found = ds.NumpySlicesDataset((images, labels), ["x", "y"], shuffle=plan.random() < 0.5)
    if is_noisy:
        found = found.map(noisy, ["x"], num_parallel_workers=1)
    return found.batch(2)


def callbacks_of_a_call():
    stock, trace = stock_callbacks(plan)
    remembering = plan.choice([Diary([]), OwnDiary()])
    traces.extend([trace, remembering.trace])
    found = [Die(), stock, remembering]
    plan.shuffle(found)
    if plan.random() < 0.4:
        directory = str(FOLDER / plan.choice("ab"))
        found.append(CheckpointMonitor(directory=directory, save_checkpoint_steps=plan.randrange(2, 9)))
    return found


def train(work):
    callbacks, epochs = callbacks_of_a_call(), plan.randrange(1, 4)
    # Two pipelines that draw from one stream at a time do not give the same twice.
    if not work.noisy and plan.random() < 0.5:
        work.model.fit(epochs, work.rows, work.rows, callbacks=callbacks)
    else:
        work.model.train(epochs, work.rows, callbacks=callbacks)


class Loop:
    """A loop of one's own: one or two optimizers, and perhaps something between the rounds."""

    def __init__(self, work):
        self.plan = plan
        half = len(work.weights) // 2 if plan.random() < 0.4 else 0
        self.weights = work.weights
        self.parts = [work.weights[:half], work.weights[half:]] if half else [work.weights]
        self.optimizers = [nn.Adam(part, 1e-2) for part in self.parts] if half else [work.optimizer]
        self.between = plan.choice([None, *BETWEEN_ROUNDS])
        self.between = self.between(self) if self.between is not None else None
        self.forward = lambda x, y: work.loss(work.network(x), y)
        self.step_of = ms.value_and_grad(self.forward, None, self.weights)
        if self.between is not None:
            traces.append(self.between.trace)
        if half:
            optimizers.extend(self.optimizers)

    @property
    def state(self):
        return [*self.optimizers, *([self.between.state] if self.between is not None else [])]

    def round(self, x, y):
        may_die()
        gradients = self.step_of(x, y)[1]
        gradients = self.between.before(gradients) if self.between is not None else gradients
        if gradients is not None:
            for optimizer, part in zip(self.optimizers, self.parts, strict=True):
                optimizer(gradients[: len(part)])
                gradients = gradients[len(part) :]
                may_die()
        if self.between is not None:
            self.between.after()
        may_die()


def loop(work):
    mine, epochs = Loop(work), plan.randrange(1, 4)
    with resilient.training(work.network, *mine.state) as run:
        for x, y in run.steps(work.rows, epochs):
            mine.round(x, y)


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


optimizers = []
works = [Work() for _ in range(plan.randrange(1, 3))]
known = [train, train, train, train, loop, loop, loop, evaluate, evaluate, draw, change, make]
actions = [plan.choice(known) for _ in range(plan.randrange(2, 7))]
most = 16 + 24 * sum(action in (train, loop) for action in actions)
fatal = [plan.randrange(1, most // (number + 1)) for number in range(3)]
for action in [train, *actions]:
    action(plan.choice(works))

for cell in [*optimizers, *(cell for work in works for cell in (work.network, work.optimizer))]:
    for parameter in cell.get_parameters():
        digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
parts = {"weights, evaluations, draws": digest.hexdigest()[:16]}
for number, trace in enumerate(traces):
    parts[f"{number}: {trace.__qualname__}"] = hashlib.sha256(repr(trace()).encode()).hexdigest()[:16]
print("result", parts, [action.__name__ for action in actions])
