"""A training of 16 steps in two epochs that fails in a way of its own: causes.py KIND FOLDER, supervised.

What happens to it happens in its first attempt (``once``), and in every one where KIND says ``always``. All
kinds that are not left out a batch end with the same parameters. The last line is a hash of them.

never                nothing happens
map, generator       a process of the dataset's kills itself; ``exit``: leaves with status 3
terminated           SIGTERM, while there are such processes
nan, nan_always      there is no number in the batch of step 11, and LossMonitor raises
poison_always        step 11 cannot begin
left_out             step 11 is left out of the data, in a training that never fails
bad_state            is killed in step 11, and dies whenever it is to go on from that step
sleep, lock          hangs in a callback of step 6; with the interpreter's lock
stopped              is stopped in a callback of step 6, and goes on once it is woken
compiling, evaluating, long_step   takes long after step 16, 8 and 10, and prints ``here`` meanwhile
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Callback, LossMonitor, Model
from small import STEPS_PER_EPOCH, SmallNetwork, model

from resilient.worker.session.session import current

KIND, FOLDER = sys.argv[1], Path(sys.argv[2])
ONCE = current().config.attempt == 1 and not (FOLDER / "again").exists()
NOW = ONCE or KIND.endswith("always")
FATAL_ROW, FATAL_STEP = 9, 11


def arrays():
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((2 * STEPS_PER_EPOCH, 4)).astype(np.float32)
    return rows, generator.integers(0, 3, len(rows)).astype(np.int32)


ROWS, LABELS = arrays()


def die_here():
    if KIND.endswith("exit"):
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def unchanged(row):
    """Runs in a process of the dataset's. Until it dies, the training has come to wait for this row."""
    if NOW and KIND.startswith("map") and np.array_equal(row, ROWS[FATAL_ROW]):
        time.sleep(1)
        die_here()
    return row


class Source:
    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        if NOW and KIND.startswith("generator") and index == FATAL_ROW:
            die_here()
        return ROWS[index], LABELS[index]


class Slow(Source):
    """One row takes longer than any grace."""

    def __getitem__(self, index):
        if NOW:
            announce()
            time.sleep(60)
        return super().__getitem__(index)


def spoilt(index):
    """The rows, without a number in the batch of one step of the second epoch."""
    rows = ROWS.copy()
    rows[2 * index : 2 * index + 2] = np.inf
    return rows


def slices(rows, labels):
    return ds.NumpySlicesDataset((rows, labels), ["x", "y"], shuffle=False).batch(2)


def dataset():
    if KIND.startswith("map"):
        rows = ds.NumpySlicesDataset((ROWS, LABELS), ["x", "y"], shuffle=False)
        return rows.map(unchanged, ["x"], num_parallel_workers=2, python_multiprocessing=True).batch(2)
    if KIND.startswith(("generator", "terminated")):
        more = {"num_parallel_workers": 2, "python_multiprocessing": True}
        return ds.GeneratorDataset(Source(), ["x", "y"], shuffle=False, **more).batch(2)
    return slices(ROWS, LABELS)


def announce(after_s=0):
    """Prints from another process: this one may be busy then."""
    subprocess.Popen(["/bin/sh", "-c", f"sleep {after_s}; echo here"])


def hold_the_lock():
    """A loop in C that no signal ends."""
    pow(7, 10**9)


# No list: that a callback fills one is part of the state.
BEGUN = threading.Event()
"""The steps that this process has begun: an attribute of a callback would be carried into the next one."""


class Hooks(Callback):
    """What happens between steps."""

    def on_train_step_begin(self, run_context):
        step = run_context.original_args().cur_step_num
        if KIND == "bad_state" and step == FATAL_STEP and not BEGUN.is_set():
            os._exit(7)
        BEGUN.set()
        if NOW and step == FATAL_STEP and KIND == "poison_always":
            raise ValueError("this batch is poison")

    def on_train_step_end(self, run_context):
        step = run_context.original_args().cur_step_num
        with open(FOLDER / "steps", "a") as steps:
            steps.write(f"{step}\n")
        if NOW and KIND == "bad_state" and step == FATAL_STEP:
            os.kill(os.getpid(), signal.SIGKILL)
        if NOW and step == 6:
            self.pause()

    def pause(self):
        if KIND == "terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        elif KIND == "sleep":
            time.sleep(1000)
        elif KIND == "lock":
            hold_the_lock()
        elif KIND == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)


class Long(SmallNetwork):
    """The step after the newest one takes minutes, in C: Python's own handlers do not run meanwhile."""

    rounds = 0

    def construct(self, x):
        self.rounds += 1
        if NOW and self.rounds == FATAL_STEP:
            announce(0.5)
            hashlib.pbkdf2_hmac("sha256", b"long", b"step", 10**9)
        return super().construct(x)


class Deep(nn.Cell):
    """Takes long to compile where it is deep."""

    def __init__(self, depth):
        super().__init__()
        self.dense = nn.Dense(4, 3)
        self.depth = depth

    def construct(self, x):
        for _ in range(self.depth):
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
            x = ms.ops.sin(x) + x
        return self.dense(x)


class Announced(Callback):
    """Tells that the compilation has begun."""

    def on_train_step_begin(self, run_context):
        if NOW:
            announce(1)


def train():
    """Trains; the cells whose parameters count."""
    trained = model(Long() if KIND == "long_step" else SmallNetwork())
    hooks = [LossMonitor(), Hooks()]
    if KIND.startswith("nan") and NOW:
        # The first epoch is read from a dataset of its own.
        trained.train(1, dataset(), callbacks=hooks)
        trained.train(1, slices(spoilt(FATAL_STEP - STEPS_PER_EPOCH - 1), LABELS), callbacks=hooks)
    elif KIND.startswith("nan"):
        trained.train(1, dataset(), callbacks=hooks)
        trained.train(1, dataset(), callbacks=hooks)
    elif KIND == "left_out":
        trained.train(1, dataset(), callbacks=hooks)
        batch = slice(2 * (FATAL_STEP - STEPS_PER_EPOCH - 1), 2 * (FATAL_STEP - STEPS_PER_EPOCH))
        trained.train(1, slices(np.delete(ROWS, batch, 0), np.delete(LABELS, batch)), callbacks=hooks)
    elif KIND == "evaluating":
        trained = Model(trained._network, trained._loss_fn, trained._optimizer, metrics={"loss": nn.Loss()})
        judged = ds.GeneratorDataset(Slow(), ["x", "y"], shuffle=False, num_parallel_workers=1).batch(2)
        trained.fit(2, dataset(), judged, callbacks=hooks)
    else:
        trained.train(2, dataset(), callbacks=hooks)
    if KIND in ("never", "compiling"):
        ms.set_context(mode=ms.GRAPH_MODE)
        model(Deep(400 if KIND == "compiling" and NOW else 1)).train(1, dataset(), callbacks=[Announced()])
    return trained.train_network


digest = hashlib.sha256()
for parameter in train().get_parameters():
    digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest())
