"""What a loop uses and was not given: found, carried where that can be, and named where it cannot."""

from __future__ import annotations

import functools
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.amp import DynamicLossScaler
from mindspore.experimental import optim
from small import SmallNetwork, dataset

from resilient.state import capture, not_given
from resilient.state.hidden import hidden_parameters

pytestmark = pytest.mark.mindspore


class Average:
    """As users write it."""

    def __init__(self, network):
        self.decay, self.updates = 0.9, 0
        self.values = [p.copy() for p in network.trainable_params()]


class Trainer:
    """Everything in its attributes."""

    def __init__(self):
        self.net = SmallNetwork()
        self.opt = nn.Adam(self.net.trainable_params(), 0.01)
        self.scaler = DynamicLossScaler(1024, 2, 5)
        self.epochs, self.name = 3, "x"

    def look(self):
        return look(self.net, self.opt)


def look(*given, data=None):
    """What the caller's frame shows."""
    trained = {id(p): p.name for p in capture.parameters(given)}
    return not_given.look_around(sys._getframe(1), list(given), trained, data)


def test_objects_with_parameters_are_found_wherever_the_loop_can_reach_them():
    """In a variable, a list, an object, behind a function, a method and a partial; an optimizer and a
    network."""
    net, other = SmallNetwork(), SmallNetwork()
    opt = nn.Adam(net.trainable_params(), 0.01)
    second = nn.Momentum(other.trainable_params(), 0.01, 0.9)
    accumulated = opt.parameters.clone(prefix="accumulated", init="zeros")
    average = Average(net)
    history = {"loss": [ms.Tensor(1.0)]}

    def step_of(scaler):
        def step(x):
            return scaler.scale(net(x))

        return step

    step = step_of(DynamicLossScaler(1024, 2, 5))
    partly = functools.partial(step_of, DynamicLossScaler(8, 2, 5))
    schedule = optim.lr_scheduler.StepLR(optim.Adam(net.trainable_params(), lr=0.1), 2)
    found = look(net, opt)
    assert not found.findings
    assert set(found.carried) == {
        "other", "second", "accumulated", "average", "history['loss']", "step(scaler)", "partly[0]",
        "schedule",
    }  # fmt: skip
    assert "average (Average)" in found.remark
    assert step
    assert [second, partly, schedule, average, history]
    assert accumulated


def test_an_objects_attributes_are_found():
    """Of what holds the network as well."""
    assert set(Trainer().look().carried) == {"self.scaler"}


def test_what_was_given_raises_no_alarm():
    """Nor what is part of it, what wraps it, the dataset, or what holds numbers only."""
    net = SmallNetwork()
    opt = nn.Adam(net.trainable_params(), 0.01)
    with_loss = nn.WithLossCell(net, nn.SoftmaxCrossEntropyWithLogits(sparse=True))
    model = ms.train.Model(net, nn.MSELoss(), opt)
    weights, metric = net.trainable_params(), nn.Accuracy()
    grad = ms.value_and_grad(with_loss, None, weights)
    data = dataset()
    batches = [ms.Tensor(np.ones(3))]
    best, history, scores = 0.5, [1.0], {"a": 1}
    found = look(net, opt, data=batches)
    assert not found.findings
    assert not found.carried
    assert [model, metric, grad, data, best, history, scores]


def test_a_variable_that_the_loop_replaces_is_named():
    """Nobody could put a value into it. One that each round sets before it is used begins anew anyway."""
    net = SmallNetwork()
    average = [p.value() for p in net.trainable_params()]
    total = ms.Tensor(0.0)
    batch = gradients = ms.Tensor(np.ones(3))
    found = look(net)
    for batch in range(1):
        gradients = batch
        average = [0.9 * old for old in average]
        total = total + gradients
    assert len(found.findings) == 2
    assert any(text.startswith("the loop replaces average (list)") for text in found.findings)
    assert any(text.startswith("the loop replaces total (Tensor)") for text in found.findings)
    assert "average" not in found.carried


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("for x in look():\n  count += 1", ["count"]),
        ("for x in look():\n  if x < best: best = x", ["best"]),
        ("for x in look():\n  word, pair = word + 'a', (pair[1], x)", ["pair", "word"]),
        ("for x in enumerate(look()):\n  best = best or x", ["best"]),
        ("for x in look():\n  if nothing is None: nothing = x", ["nothing"]),
        # Each round sets these before it uses them.
        ("for count, x in enumerate(look()):\n  print(count)", []),
        ("for x in look():\n  best = x\n  count = best + 1", []),
        ("for x in look():\n  for count in range(3): print(count)", []),
        ("for x in look():\n  best, word = [count for count in (1, 2)], 'b'", []),
        # Only used; set behind the loop; set by a loop behind it.
        ("for x in look():\n  print(best)\nbest = 2", []),
        ("for x in look():\n  print(best)\nfor x in (1,):\n  count += 1", []),
        # Text, attributes and methods of a variable's name are no use of it.
        ("for x in look():\n  print('best', x.count, ''.word())\n  best = count = word = 1", []),
    ],
)
@pytest.mark.parametrize("scope", ["function", "module", "global", "closure"])
def test_plain_variables_that_a_loop_replaces_are_known(body, named, scope):
    """Numbers, text, tuples of them, and None, wherever the variables live: used in a round and set after
    that. The line has their names, and what to do.
    """
    seen_there = []

    def look_here():
        seen_there.append(not_given.look_around(sys._getframe(1), [SmallNetwork()], {}, None))
        return []

    names = {"look": look_here}
    begin = "count, best, word, pair, nothing = 0, 0.0, 'w', (1, 2), None\n"
    inner = "\n".join("    " + line for line in body.splitlines())
    if scope == "function":
        code = "def run():\n    " + begin + inner + "\nrun()"
    elif scope == "closure":
        code = "def run():\n    " + begin + inner + "\n    return lambda: (count, best, word, pair)\nrun()"
    elif scope == "global":
        code = begin + "def run():\n    global count, best, word, pair, nothing\n" + inner + "\nrun()"
    else:
        code = begin + body
    exec(compile(code, "<script>", "exec"), names)
    (found,) = seen_there
    assert sorted(found.replaced) == named
    if named:
        assert ", ".join(found.replaced) + " at each round" in found.lost
        assert "run.step counts the steps" in found.lost
    else:
        assert found.lost == ""


def test_what_would_take_more_memory_than_the_training_is_named(monkeypatch):
    """It is kept only where it is asked for."""
    monkeypatch.setattr(not_given, "_ALWAYS_BYTES", 1000)
    net = SmallNetwork()
    teacher = nn.Dense(300, 100)
    found = look(net)
    (text,) = found.findings
    assert text.startswith("teacher (Dense) was not given to training()")
    assert not found.carried
    assert teacher


def test_parameters_that_mindspore_does_not_look_for_are_found_in_a_cell():
    """The learning rates of the experimental optimizers, and a scaler in a training cell."""
    net = SmallNetwork()
    opt = optim.Adam(net.trainable_params(), lr=0.1)
    net.scaler = DynamicLossScaler(1024, 2, 5)
    ((_, found),) = hidden_parameters([net, opt])
    names = {name.rpartition(".")[2] for name in vars(found)}
    assert names == {"lr", "scale_value", "counter"}
    assert not hidden_parameters([SmallNetwork()])
