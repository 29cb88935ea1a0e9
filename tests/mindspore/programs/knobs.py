"""Trains by ``Model`` or by a loop: WAY EPOCHS RATE [FOLDER]. The loop dies once in its fourth epoch."""

import hashlib
import os
import signal
import sys

import mindspore as ms
import numpy as np
from mindspore import dataset, nn, ops
from mindspore.train import Callback, Model

import resilient

X = np.random.RandomState(0).randn(32, 4).astype(np.float32)
Y = X.sum(1, keepdims=True)
STEPS_PER_EPOCH = 4


def make(rate):
    ms.set_seed(3)
    dataset.config.set_seed(3)
    network = nn.Dense(4, 1)
    return network, nn.Adam(network.trainable_params(), rate)


def data():
    return dataset.NumpySlicesDataset((X, Y), ["x", "y"], shuffle=True).batch(8)


def stepper(network, optimizer):
    loss_fn = nn.MSELoss()
    gradients_of = ms.value_and_grad(lambda x, y: loss_fn(network(x), y), None, optimizer.parameters)

    def step(x, y):
        loss, gradients = gradients_of(x, y)
        optimizer(gradients)
        return loss

    return step


def digest(network):
    values = b"".join(parameter.asnumpy().tobytes() for parameter in network.get_parameters())
    return hashlib.sha256(values).hexdigest()[:16]


class Lowers(Callback):
    """Changes the learning rate, as a schedule of the training's own does."""

    def __init__(self, optimizer):
        super().__init__()
        self._rate = optimizer.learning_rate

    def on_train_epoch_end(self, run_context):
        # Not set_data: the compiled step would go on with the old one.
        ops.assign(self._rate, self._rate * 0.5)


def by_model(epochs, rate):
    network, optimizer = make(rate)
    model = Model(network, nn.MSELoss(), optimizer)
    model.train(epochs, data(), callbacks=[Lowers(optimizer)], dataset_sink_mode=False)
    return digest(network)


def by_loop(epochs, rate, folder):
    network, optimizer = make(rate)
    step = stepper(network, optimizer)
    mark = os.path.join(folder, "died")
    with resilient.training(network, optimizer) as run:
        for x, y in run.steps(data(), epochs=epochs):
            step(x, y)
            if run.step == 3 * STEPS_PER_EPOCH + 1 and not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
    return digest(network)


if __name__ == "__main__":
    way, epochs, rate, *folder = sys.argv[1:]
    train = by_model if way == "model" else by_loop
    print("result", train(int(epochs), float(rate), *folder), flush=True)
