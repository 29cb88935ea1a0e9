"""Handwritten digits: a stock MindSpore script, without a line about fault tolerance.

    python examples/digits.py                 trains as always
    resilient-run examples/digits.py          the same training, which survives failures

The images are scikit-learn's bundled digits: 1,797 of them, 8 by 8 pixels. The script trains a small
convolutional network by Adam with a decaying learning rate, and evaluates it after each epoch. In the end it
prints the test accuracy and a hash of the weights.
"""

import argparse
import hashlib

import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Accuracy, LossMonitor, Model
from sklearn.datasets import load_digits


class Network(nn.Cell):
    """Two convolutions with batch normalization, then one dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.SequentialCell(
            nn.Conv2d(1, 16, 3, pad_mode="same"),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, pad_mode="same"),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Flatten(),
        )
        self.classify = nn.Dense(32 * 4 * 4, 10)

    def construct(self, images):
        return self.classify(self.features(images))


def load(batch_size):
    """The training and the test images as batched datasets of (image, digit)."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:297], order[297:]
    training = ds.NumpySlicesDataset((images[train], labels[train]), shuffle=True)
    testing = ds.NumpySlicesDataset((images[test], labels[test]), shuffle=False)
    return training.batch(batch_size, drop_remainder=True), testing.batch(297)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--batch-size", type=int, default=25)
    options = options.parse_args()

    training, testing = load(options.batch_size)
    steps = training.get_dataset_size()
    network = Network()
    rate = nn.cosine_decay_lr(1e-5, 2e-3, options.epochs * steps, steps, options.epochs)
    model = Model(
        network,
        nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"),
        nn.Adam(network.trainable_params(), rate),
        metrics={"accuracy": Accuracy()},
    )
    model.fit(options.epochs, training, testing, callbacks=[LossMonitor(steps)])

    accuracy = model.eval(testing)["accuracy"]
    weights = hashlib.sha256()
    for parameter in model.train_network.get_parameters():
        weights.update(parameter.asnumpy().tobytes())
    print(f"test accuracy {accuracy:.4f}")
    print(f"weights {weights.hexdigest()[:16]}")


if __name__ == "__main__":
    ms.set_context(mode=ms.GRAPH_MODE)
    main()
