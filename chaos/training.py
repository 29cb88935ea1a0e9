"""A small, quick training that tells what it has done: what ``chaos.kills`` kills.

    training.py FOLDER [--steps N] [--mode graph|pynative] [--way train|fit|loop] [--augment]
                       [--monitor none|sync|async] [--save-steps N] [--memory-group DIR --hog STEP]

It trains by ``Model.train``, by ``Model.fit`` or in a loop of its own. With --augment its pipeline draws
from NumPy's random stream, in one worker. With --hog it joins a control group and takes memory from that step
on, without an end, once in the life of the run. FOLDER gets, whatever kills this process:

    steps     a line for each beginning and each completion of a step: PID begun|done STEP
    result    at the end: a hash of all parameters, optimizer state and random streams
    exit      a named pipe; a byte that comes out of it is the status of an ``os._exit``, at once
"""

import argparse
import hashlib
import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model

import resilient

STEPS_PER_EPOCH = 50
_ROWS = 8
_HOG_BYTES = 1024 * 1024


class Network(nn.Cell):  # type: ignore[misc]
    """Two dense layers with batch normalization between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(12, 64)
        self.norm = nn.BatchNorm1d(64)
        self.second = nn.Dense(64, 4)

    def construct(self, x: Any) -> Any:
        return self.second(ms.ops.relu(self.norm(self.first(x))))


class Witness(Callback):  # type: ignore[misc]
    """Writes down what happens, and draws from the streams that a resume has to put back.

    Of NumPy's only where no pipeline draws from it: which of the two came first would be chance.
    """

    def __init__(self, path: Path, hog_step: int, *, leave_numpy: bool) -> None:
        super().__init__()
        self._hog_step = hog_step
        self._leave_numpy = leave_numpy
        # Unbuffered: what is written stands there, whatever becomes of us.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def on_train_step_begin(self, run_context: Any) -> None:
        self.begun(run_context.original_args().cur_step_num)

    def on_train_step_end(self, run_context: Any) -> None:
        self.done(run_context.original_args().cur_step_num)

    def begun(self, step: int) -> None:
        """A step begins."""
        self._write("begun", step)

    def done(self, step: int) -> None:
        """A step is complete."""
        random.random()
        if not self._leave_numpy:
            np.random.random()
        self._write("done", step)
        if step == self._hog_step:
            # The training continues meanwhile: death comes in whatever it is doing.
            threading.Thread(target=take_memory, daemon=True).start()

    def _write(self, what: str, step: int) -> None:
        os.write(self._file, f"{os.getpid()} {what} {step}\n".encode())


def leave_when_told(path: Path) -> None:
    """Leaves at once with the status that comes out of the pipe."""
    with open(path, "rb", buffering=0) as pipe:
        status = pipe.read(1)
    os._exit(status[0])


def take_memory() -> None:
    """Takes memory until somebody does something about it."""
    taken = []
    while True:
        taken.append(b"x" * _HOG_BYTES)


def hog_step(options: argparse.Namespace) -> int:
    """From which step on memory is taken; 0 for never. Once in a run: the next attempt behaves."""
    mark = options.folder / "hogged"
    if not options.hog or mark.exists():
        return 0
    mark.touch()
    (options.memory_group / "cgroup.procs").write_text(str(os.getpid()))
    return int(options.hog)


def augmented(row: Any) -> Any:
    """A row with noise from NumPy's stream."""
    return row + np.random.standard_normal(row.shape).astype(np.float32) * 0.1


def dataset(steps_per_epoch: int, *, augment: bool = False) -> Any:
    """Shuffled rows, the same in each process."""
    generator = np.random.default_rng(5)
    images = generator.standard_normal((steps_per_epoch * _ROWS, 12)).astype(np.float32)
    labels = generator.integers(0, 4, len(images)).astype(np.int32)
    rows = ds.NumpySlicesDataset((images, labels), ["x", "y"], shuffle=True)
    if augment:
        rows = rows.map(augmented, ["x"], num_parallel_workers=1)
    return rows.batch(_ROWS)


def monitors(kind: str, save_steps: int) -> list[Any]:
    """The script's own CheckpointMonitor, if it is to have one."""
    if kind == "none":
        return []
    return [resilient.CheckpointMonitor(save_checkpoint_steps=save_steps, async_save=kind == "async")]


def train(options: argparse.Namespace) -> Sequence[Any]:
    """Trains to the end; the trained network and its optimizer."""
    epochs = options.steps // STEPS_PER_EPOCH
    network = Network()
    rate = nn.cosine_decay_lr(1e-4, 1e-2, options.steps, STEPS_PER_EPOCH, epochs)
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    optimizer = nn.Adam(network.trainable_params(), rate)
    witness = Witness(options.folder / "steps", hog_step(options), leave_numpy=options.augment)
    rows = dataset(STEPS_PER_EPOCH, augment=options.augment)
    if options.way == "loop":
        run_loop(network, loss, optimizer, rows, epochs, witness)
        return network, optimizer
    model = Model(network, loss, optimizer, metrics={"accuracy": Accuracy()})
    callbacks = [witness, *monitors(options.monitor, options.save_steps)]
    if options.way == "fit":
        model.fit(epochs, rows, dataset(1), callbacks=callbacks)
    else:
        model.train(epochs, rows, callbacks=callbacks)
    return [model.train_network]


def run_loop(network: Any, loss: Any, optimizer: Any, rows: Any, epochs: int, witness: Witness) -> None:
    """The same training in a loop of its own."""

    def forward(x: Any, y: Any) -> Any:
        return loss(network(x), y)

    step_of = ms.value_and_grad(forward, None, optimizer.parameters)
    with resilient.training(network, optimizer) as run:
        for x, y in run.steps(rows, epochs):
            step = run.step + 1
            witness.begun(step)
            optimizer(step_of(x, y)[1])
            witness.done(step)


def digest(cells: Sequence[Any]) -> str:
    """A hash of everything that a training state is made of."""
    sha = hashlib.sha256()
    for cell in cells:
        for parameter in cell.get_parameters():
            sha.update(parameter.name.encode() + parameter.asnumpy().tobytes())
    drawn = random.random(), np.random.random(), ms.get_rng_state().asnumpy().tobytes()
    sha.update(repr(drawn).encode())
    return sha.hexdigest()


def main() -> None:
    """Trains, and writes down the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=8 * STEPS_PER_EPOCH)
    parser.add_argument("--mode", choices=("graph", "pynative"), default="graph")
    parser.add_argument("--way", choices=("train", "fit", "loop"), default="train")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--monitor", choices=("none", "sync", "async"), default="none")
    parser.add_argument("--save-steps", type=int, default=3)
    parser.add_argument("--memory-group", type=Path)
    parser.add_argument("--hog", type=int, default=0, metavar="STEP")
    options = parser.parse_args()
    threading.Thread(target=leave_when_told, args=(options.folder / "exit",), daemon=True).start()
    ms.set_context(mode=ms.GRAPH_MODE if options.mode == "graph" else ms.PYNATIVE_MODE)
    result = digest(train(options))
    (options.folder / "result").write_text(result)


if __name__ == "__main__":
    main()
