"""A small training that dies at the steps, and in the ways, that the command line names.

    train.py API MODE DEATHS FOLDER

API is train, fit, calls (a loop of train and eval calls), custom (a loop of its own) or generator (train on a
GeneratorDataset whose rows are augmented with NumPy's global stream). It seeds nothing. FOLDER gets
``steps``, one line for each completed step. The last line printed is a hash of all parameters, optimizer
state and random streams.
"""

import hashlib
import random
import sys
from pathlib import Path

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from deaths import Deaths
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model

API, MODE, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[4])
STEPS_PER_EPOCH, EPOCHS = 6, 3
deaths = Deaths(sys.argv[3], FOLDER)

ms.set_context(mode=ms.GRAPH_MODE if MODE == "graph" else ms.PYNATIVE_MODE)


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.first = nn.Dense(12, 16)
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Dense(16, 4)

    def construct(self, x):
        return self.second(ms.ops.relu(self.norm(self.first(x))))


def arrays():
    generator = np.random.default_rng(5)
    images = generator.standard_normal((STEPS_PER_EPOCH * 8, 12)).astype(np.float32)
    return images, generator.integers(0, 4, len(images)).astype(np.int32)


class Augmented:
    """Rows with noise out of NumPy's global stream: what a resume has to draw again."""

    def __init__(self):
        self.images, self.labels = arrays()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = np.random.standard_normal(12).astype(np.float32)
        return self.images[index] + 0.1 * noise, self.labels[index]


def dataset(shuffle=True):
    if API == "generator":
        rows = ds.GeneratorDataset(Augmented(), ["x", "y"], shuffle=shuffle, num_parallel_workers=1)
    else:
        rows = ds.NumpySlicesDataset(arrays(), ["x", "y"], shuffle=shuffle)
    return rows.batch(8, drop_remainder=True)


def completed(step):
    with open(FOLDER / "steps", "a") as steps:
        steps.write(f"{step}\n")
    random.random()
    if API != "generator":
        np.random.random()
    deaths.at(step)


class Witness(Callback):
    def __init__(self, before=0):
        super().__init__()
        self.before = before

    def on_train_step_end(self, run_context):
        completed(self.before + run_context.original_args().cur_step_num)


def optimizer_of(network):
    rate = nn.cosine_decay_lr(1e-4, 1e-2, STEPS_PER_EPOCH * EPOCHS, STEPS_PER_EPOCH, EPOCHS)
    return nn.Adam(network.trainable_params(), rate)


def train_with_model():
    network = Network()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    model = Model(network, loss, optimizer_of(network), metrics={"accuracy": Accuracy()})
    if API == "fit":
        model.fit(EPOCHS, dataset(), dataset(shuffle=False), callbacks=[Witness()])
    elif API == "calls":
        batches = dataset()
        for epoch in range(EPOCHS):
            model.train(1, batches, callbacks=Witness(epoch * STEPS_PER_EPOCH))
            print("accuracy", model.eval(dataset(shuffle=False))["accuracy"])
    else:
        model.train(EPOCHS, dataset(), callbacks=[Witness()])
    return [model.train_network]


def train_by_hand():
    import resilient

    network = Network()
    optimizer = optimizer_of(network)
    loss_fn = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")

    def forward(x, y):
        return loss_fn(network(x), y)

    step = ms.value_and_grad(forward, None, optimizer.parameters)
    network.set_train()
    with resilient.training(network, optimizer) as run:
        for x, y in run.steps(dataset(), EPOCHS):
            deaths.at(run.step)
            _, gradients = step(x, y)
            optimizer(gradients)
            with open(FOLDER / "steps", "a") as steps:
                steps.write(f"{run.step + 1}\n")
            random.random()
    return [network, optimizer]


def main():
    cells = train_by_hand() if API == "custom" else train_with_model()
    digest = hashlib.sha256()
    for cell in cells:
        for parameter in cell.get_parameters():
            digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
    digest.update(repr((random.random(), ms.get_rng_state().asnumpy().tobytes())).encode())
    if API != "generator":
        digest.update(repr(np.random.random()).encode())
    print("result", digest.hexdigest())


main()
