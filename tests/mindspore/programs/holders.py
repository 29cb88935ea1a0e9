"""State outside of networks, in a training that dies twice: holders.py KIND DEATHS FOLDER.

KIND is loop (loss scalers, an average, accumulated gradients, a schedule, three optimizers; some of them are
given to training) or model (callbacks of every kind). DEATHS is "yes" or "never": a SIGKILL and an exception,
each in the middle of a step. The last line printed is a hash of the weights, and what the objects hold at the
end.
"""

import collections
import hashlib
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.amp import DynamicLossScaler, all_finite
from mindspore.experimental import optim
from mindspore.train import Callback, EarlyStopping, History, Model, ReduceLROnPlateau
from small import SmallNetwork, dataset

import resilient

KIND, DEATHS, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
FATAL = {5: "SIGKILL", 13: "exception"}
ms.set_seed(7)


def die(step):
    """In the middle of a step of the run, once."""
    how = FATAL.get(step)
    mark = FOLDER / f"died_{step}"
    if DEATHS == "never" or how is None or mark.exists():
        return
    mark.touch()
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("a failure of the script's own")


def show(*seen):
    digest = hashlib.sha256()
    for network in networks:
        for parameter in network.get_parameters():
            digest.update(parameter.asnumpy().tobytes())
    print("result", digest.hexdigest()[:16], *seen, flush=True)


class Average:
    """An average of the weights that warms up by a number of its own."""

    def __init__(self, network):
        self.updates = 0
        self.weights = network.trainable_params()
        self.values = [p.value().copy() for p in self.weights]

    def update(self):
        self.updates += 1
        share = min(0.9, self.updates / (self.updates + 10))
        for n, weight in enumerate(self.weights):
            self.values[n] = share * self.values[n] + (1 - share) * weight


def loop():
    first, second = networks
    adam, other = nn.Adam(first.trainable_params(), 0.02), nn.Adam(second.trainable_params(), 0.01)
    third = optim.SGD(first.trainable_params(), lr=0.1)
    schedule = optim.lr_scheduler.StepLR(third, 3, gamma=0.5)
    scaler, given = DynamicLossScaler(1024, 2, 4), DynamicLossScaler(64, 2, 6)
    loss_of = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    accumulated = adam.parameters.clone(prefix="accumulated", init="zeros")
    average = Average(first)
    counts = {"rounds": 0, "losses": []}

    def forward(x, y):
        return scaler.scale(loss_of(first(x) + second(x), y))

    gradient_of = ms.value_and_grad(forward, None, [*adam.parameters, *other.parameters])
    with resilient.training(first, adam, given, second, other, third, counts) as run:
        for x, y in run.steps(dataset(), epochs=3):
            counts["rounds"] += 1
            loss, gradients = gradient_of(x, y)
            finite = all_finite(gradients)
            gradients = scaler.unscale(gradients)
            mine, its = gradients[: len(accumulated)], gradients[len(accumulated) :]
            for place, gradient in zip(accumulated, mine, strict=True):
                ops.assign_add(place, gradient)
            if counts["rounds"] % 3 == 0:
                adam(tuple(place / 3 for place in accumulated))
                for place in accumulated:
                    ops.assign(place, ops.zeros_like(place))
                schedule.step()
            third(mine)
            die(counts["rounds"])
            other(its)
            average.update()
            given.adjust(finite)
            scaler.adjust(finite)
            counts["losses"].append(float(loss.asnumpy()))
    held = [float(v.asnumpy().sum()) for v in (*average.values, *accumulated)]
    scales = [float(p.asnumpy()) for s in (scaler, given) for p in (s.scale_value, s.counter)]
    show(
        counts["rounds"], sum(counts["losses"]), average.updates, held, scales, schedule.last_epoch.asnumpy()
    )


class Best(Callback):
    """Keeps the best weights itself, and much else."""

    epochs = 0

    def __init__(self, history):
        super().__init__()
        self.best, self.weights, self.history = None, {}, history
        self.recent = collections.deque(maxlen=3)
        self.seen = set()
        self.sums = np.zeros(4)
        self.generator = np.random.default_rng(5)
        self.total = ms.Tensor(0.0)

    def on_train_step_end(self, run_context):
        parameters = run_context.original_args()
        loss = float(parameters.net_outputs.asnumpy())
        self.history.append(round(loss, 6))
        self.recent.append(loss)
        self.seen.add(parameters.cur_step_num)
        self.sums[parameters.cur_step_num % 4] += loss * self.generator.random()
        self.total = self.total + parameters.net_outputs
        if self.best is None or loss < self.best:
            self.best = loss
            self.weights = {p.name: p.asnumpy().copy() for p in parameters.network.trainable_params()}

    def on_train_epoch_end(self, run_context):
        type(self).epochs += 1


class Die(Callback):
    """Dies when a step begins; knows by itself how many there have been."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def on_train_step_begin(self, run_context):
        self.steps += 1
        die(self.steps)


def model():
    (network, _) = networks
    losses = []
    best, stopping = Best(losses), EarlyStopping("accuracy", patience=1, restore_best_weights=True)
    reducing, history = ReduceLROnPlateau("accuracy", patience=1, mode="max"), History()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    trained = Model(network, loss, nn.Adam(network.trainable_params(), 0.05), metrics={"accuracy"})
    callbacks = [best, stopping, reducing, history, Die()]
    trained.fit(6, dataset(), dataset(), callbacks=callbacks, valid_dataset_sink_mode=False)
    kept = sum(float(v.sum()) for v in best.weights.values())
    seen = [
        len(best.seen),
        sum(losses),
        list(best.recent),
        list(best.sums),
        float(best.total.asnumpy()),
        Best.epochs,
    ]
    show(
        best.best,
        kept,
        seen,
        stopping.wait,
        stopping.stopped_epoch,
        reducing.wait,
        history.epoch,
        history.history,
    )


networks = [SmallNetwork(), SmallNetwork()]
{"loop": loop, "model": model}[KIND]()
