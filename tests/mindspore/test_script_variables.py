"""Variables of the script that its callbacks change are carried; what is not state is left alone."""

from __future__ import annotations

import functools
import threading

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.train import Callback, LambdaCallback
from played_attempts import Process

from resilient.state.script_variables import reached_by

pytestmark = pytest.mark.mindspore

losses: list[float] = []
best, unset_before = 1.0, 2.0
table = {"loss": [], "by epoch": {}}
curve = np.zeros(8, np.float32)
CONFIG = {"names": ["a", "b"], "rate": 0.1}
NUMBER, NETWORKS = 7, [nn.Dense(1, 1)]
locks = {}


class Meter:
    """A small object of the script's."""

    def __init__(self):
        self.count, self.values = 0, []

    def add(self, value):
        self.count += 1
        self.values.append(value)


meter = Meter()


def note(value):
    """A helper that the callback calls."""
    global best
    best = min(best, value)
    table["loss"].append(value)
    table["by epoch"][len(losses)] = value


class Watcher(Callback):
    """Keeps nothing in itself."""

    def on_train_epoch_end(self, run_context):
        global added
        losses.append(CONFIG["rate"] * NUMBER + len(NETWORKS))
        curve[len(losses)] = 1.0
        meter.add(0.5)
        note(0.25)
        added = len(losses)


def attempt(value_of_config=0.1):
    """The script's beginning in a new process: its variables, its callbacks, and what they reach."""
    global best, losses, table, curve, meter, CONFIG
    best, losses, table, curve, meter = (
        1.0,
        [],
        {"loss": [], "by epoch": {}},
        np.zeros(8, np.float32),
        Meter(),
    )
    CONFIG = {"names": ["a", "b"], "rate": value_of_config}
    globals().pop("added", None)
    seen, count = [], 0

    def counts(run_context):
        nonlocal count
        count += 1
        seen.append(count)

    callbacks = [Watcher(), LambdaCallback(on_train_epoch_end=counts)]
    process = Process(*callbacks, things=[("reached", reached_by(callbacks))])
    return process, (lambda: (best, losses, table, curve.tolist(), vars(meter), seen, count)), seen


def train(process):
    for callback in process.callbacks:
        callback.on_train_epoch_end(None)


def test_everything_that_callbacks_change_outside_of_themselves_is_put_back():
    """Lists, dicts, arrays, small objects and numbers, of the module and of a closure, also where a helper
    changes them; into the same list, which the script holds too. What is not there before training is set.
    """
    first, values, _ = attempt()
    train(first)
    train(first)
    recovered, wanted = first.capture(), values()
    assert wanted[-1] == 2
    second, values, seen = attempt()
    module_list = losses
    second.restore(recovered)
    assert values() == wanted
    assert losses is module_list
    assert values()[-2] is seen
    assert added == 2
    assert not first.said
    assert not second.said


def test_what_training_does_not_change_stays_as_the_script_makes_it_now():
    """A constant that a callback reads, a number that none sets, a network; without a word."""
    first, *_ = attempt()
    train(first)
    recovered = first.capture()
    second, *_ = attempt(value_of_config=0.5)
    second.restore(recovered)
    assert CONFIG["rate"] == 0.5
    assert not second.said
    assert not reached_by(second.callbacks).findings


def test_only_what_functions_name_and_may_change_is_carried():
    """No module, function, class, constant number or text, network, Tensor's owner or lock."""
    found = reached_by([Watcher()])
    assert set(found.variables) == {"losses", "best", "table", "curve", "meter", "CONFIG", "added"}
    assert not found.findings


def test_what_is_changed_and_cannot_be_carried_is_named():
    """A dict of locks, and a list that is too long from the beginning; what is only read is not."""
    held, long, read = {"lock": threading.Lock()}, [0.0] * 5000, [threading.Lock()]

    def change(_, run_context):
        held.update(other=threading.Lock())
        long.append(len(read))

    found = reached_by([LambdaCallback(on_train_end=functools.partial(change, None))])
    assert not found.variables
    assert len(found.findings) == 2
    assert any("held (dict)" in text for text in found.findings)
    assert any("long (list)" in text for text in found.findings)


def test_two_variables_of_one_name_are_told_apart():
    """Each closure has its own."""

    def counting():
        seen = []
        return lambda run_context: seen.append(ms.__version__), seen

    (one, first), (other, second) = counting(), counting()
    callbacks = [LambdaCallback(on_train_end=one), LambdaCallback(on_train_epoch_end=other)]
    found = reached_by(callbacks)
    assert [v.value for v in found.variables.values()] == [first, second]
    assert [v.value is x for v, x in zip(found.variables.values(), (first, second), strict=True)] == [
        True,
        True,
    ]
