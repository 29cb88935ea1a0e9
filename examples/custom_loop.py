"""Handwritten digits again, with a training loop of your own instead of ``Model``.

    python examples/custom_loop.py            saves to ./output; run it again after a failure, and it resumes
    resilient-run examples/custom_loop.py     saves to the run's directory, and restarts by itself

Two lines make it fault tolerant: the ``with`` and the ``for``.
"""

import argparse
import hashlib

import mindspore as ms
from digits import Network, load
from mindspore import nn

import resilient


def accuracy(network, testing):
    network.set_train(False)
    right = total = 0
    for images, labels in testing.create_tuple_iterator(num_epochs=1):
        right += int((network(images).argmax(axis=1) == labels).sum())
        total += len(labels)
    network.set_train(True)
    return right / total


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--batch-size", type=int, default=25)
    options = options.parse_args()

    training, testing = load(options.batch_size)
    steps = training.get_dataset_size()
    network = Network()
    network.set_train()
    rate = nn.cosine_decay_lr(1e-5, 2e-3, options.epochs * steps, steps, options.epochs)
    optimizer = nn.Adam(network.trainable_params(), rate)
    loss_of = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")

    def forward(images, labels):
        return loss_of(network(images), labels)

    gradients_of = ms.value_and_grad(forward, None, optimizer.parameters)

    with resilient.training(network, optimizer) as run:
        for images, labels in run.steps(training, options.epochs):
            loss, gradients = gradients_of(images, labels)
            optimizer(gradients)
            if run.step % steps == steps - 1:
                print(f"step {run.step + 1}, loss {float(loss):.4f}")

    weights = hashlib.sha256()
    for parameter in network.get_parameters():
        weights.update(parameter.asnumpy().tobytes())
    print(f"test accuracy {accuracy(network, testing):.4f}")
    print(f"weights {weights.hexdigest()[:16]}")


if __name__ == "__main__":
    ms.set_context(mode=ms.PYNATIVE_MODE)
    main()
