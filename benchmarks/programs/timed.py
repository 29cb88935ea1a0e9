"""A training that reports how long it took. The benchmarks run it with and without us.

    timed.py FOLDER --steps N [--kind digits|tiny|wide] [--from CHECKPOINT] [--save CHECKPOINT]

digits is the network and the data of ``examples/digits.py``. tiny has two small dense layers: its steps are
the shortest, so the cost of a boundary shows most. wide has 100 MB of parameters, and Adam twice as much
again.

It prints ``training S``, the seconds from the end of step 20 (compiled, warm) to that of the last step, and,
under ``resilient-run``, ``ours S``, how many of them our callbacks took. FOLDER, unless it is ``-``, gets

    marks    PID NAME T for each stage of the start, T in seconds of the monotonic clock
    steps    PID done N for each completed step

--save writes a stock checkpoint at the end, --from loads one at the start, as a person would by hand.
"""

import time

BEGAN_S = time.monotonic()

# Before this line the interpreter starts, after it MindSpore does.
# ruff: noqa: E402
import argparse
import os
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Callback, Model

IMPORTED_S = time.monotonic()
WARM_STEPS = 20


class Wide(nn.Cell):
    """100 MB of float32 in three layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.SequentialCell(
            nn.Dense(64, 4872), nn.ReLU(), nn.Dense(4872, 4872), nn.ReLU(), nn.Dense(4872, 196)
        )

    def construct(self, x):
        return self.layers(x)


class Marks:
    """Files whose lines are written at once, however this process ends."""

    def __init__(self, folder):
        self._files = {}
        self._folder = folder

    def write(self, name, line):
        if self._folder == "-":
            return
        if name not in self._files:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._files[name] = os.open(Path(self._folder) / name, flags, 0o600)
        os.write(self._files[name], f"{os.getpid()} {line}\n".encode())

    def mark(self, name, at_s=None):
        self.write("marks", f"{name} {at_s or time.monotonic():.6f}")


class OwnTime:
    """Sums up the time in our own callbacks, if there are any."""

    def __init__(self):
        self.seconds = 0.0
        passage = sys.modules.get("resilient.worker.call.passage")
        self.present = passage is not None
        for owner in (passage._FirstCallback, passage._LastCallback) if self.present else ():
            for name in ("on_train_step_begin", "on_train_step_end", "on_train_epoch_end"):
                if name in vars(owner):
                    setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method):
        def timed(callback, run_context):
            began_s = time.perf_counter()
            method(callback, run_context)
            self.seconds += time.perf_counter() - began_s

        return timed


class Stopwatch(Callback):
    """Looks at the clock."""

    def __init__(self, marks, last):
        super().__init__()
        self._marks = marks
        self._last = last
        self._first = True
        self._began_s = 0.0
        self._account = OwnTime()

    def on_train_step_end(self, run_context):
        step = run_context.original_args().cur_step_num
        self._marks.write("steps", f"done {step}")
        if self._first:
            self._first = False
            self._marks.mark("stepped")
        if step == WARM_STEPS:
            self._account.seconds = 0.0
            self._began_s = time.perf_counter()
        if step == self._last:
            # Computations in the background belong to the training.
            float(run_context.original_args().net_outputs.asnumpy())
            print(f"training {time.perf_counter() - self._began_s:.6f}")
            if self._account.present:
                print(f"ours {self._account.seconds:.6f}")


def digits():
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    import digits as example

    training, _ = example.load(25)
    return example.Network(), training


def tiny():
    network = nn.SequentialCell(nn.Dense(12, 64), nn.ReLU(), nn.Dense(64, 4))
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((400, 12)).astype(np.float32)
    labels = generator.integers(0, 4, len(rows)).astype(np.int32)
    return network, ds.NumpySlicesDataset((rows, labels), shuffle=True).batch(8)


def wide():
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((320, 64)).astype(np.float32)
    labels = generator.integers(0, 196, len(rows)).astype(np.int32)
    return Wide(), ds.NumpySlicesDataset((rows, labels), shuffle=True).batch(32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--kind", choices=("digits", "tiny", "wide"), default="digits")
    parser.add_argument("--from", dest="source")
    parser.add_argument("--save")
    options = parser.parse_args()
    marks = Marks(options.folder)
    marks.mark("began", BEGAN_S)
    marks.mark("imported", IMPORTED_S)
    ms.set_context(mode=ms.GRAPH_MODE)
    network, training = {"digits": digits, "tiny": tiny, "wide": wide}[options.kind]()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    model = Model(network, loss, nn.Adam(network.trainable_params(), 1e-4))
    marks.mark("built")
    if options.source:
        ms.load_param_into_net(model.train_network, ms.load_checkpoint(options.source))
        marks.mark("loaded")
    epochs = -(-options.steps // training.get_dataset_size())
    model.train(epochs, training, callbacks=[Stopwatch(marks, epochs * training.get_dataset_size())])
    if options.save:
        ms.save_checkpoint(model.train_network, options.save)


if __name__ == "__main__":
    main()
