"""Attributes of the script's own Cells, and which Parameters are trained: captured, put back, or named."""

from __future__ import annotations

import json

import mindspore
import pytest
from mindspore import nn

from resilient.state.cell_attributes import CellAttributes


class Counting(nn.Cell):
    def __init__(self, scale=0.5):
        super().__init__()
        self.inner = nn.Dense(2, 2)
        self.count = 0
        self.scale = scale
        self.last = float("inf")

    def construct(self, x):
        self.count += 1
        return self.inner(x) * self.scale


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE if request.param == "graph" else mindspore.PYNATIVE_MODE)
    yield request.param
    mindspore.set_context(mode=before)


def of(network):
    """At the beginning of a call that trains this network."""
    return CellAttributes({0: [network]})


def after_json(saved):
    return json.loads(json.dumps(saved, allow_nan=False))


def test_a_training_that_changes_nothing_leaves_nothing():
    """Then a state of such a network is what it was before attributes were captured."""
    assert of(Counting()).capture() == {}


def test_a_count_goes_on_in_both_modes(mode):
    """``construct`` sets it, so a graph reads it in each step too; and it is carried once more after that.

    A number that JSON does not know is left out.
    """
    network = Counting()
    attributes = of(network)
    network(mindspore.ops.ones((1, 2)))
    network.last = float("nan")
    saved = after_json(attributes.capture())
    again, told = Counting(), []
    resumed = of(again)
    resumed.restore(saved, told.append)
    assert (again.count, told) == (1, [])
    assert of(again).capture() == saved, "the next call over the same network"
    assert after_json(resumed.capture()) == saved


def test_what_a_graph_may_have_compiled_in_is_named(mode):
    """A callback halves the scale and unfreezes a layer: a graph compiled before knows nothing of it."""
    network = Counting()
    network.inner.weight.requires_grad = False
    attributes = of(network)
    network.scale = 0.25
    network.inner.weight.requires_grad = True
    saved = after_json(attributes.capture())
    again, told = Counting(), []
    again.inner.weight.requires_grad = False
    of(again).restore(saved, told.append)
    if mode == "pynative":
        assert (again.scale, again.inner.weight.requires_grad, told) == (0.25, True, [])
    else:
        assert (again.scale, again.inner.weight.requires_grad) == (0.5, False)
        assert told[0].startswith(
            "Counting.scale was 0.25 when the state was saved, and the script gives 0.5"
        )
        assert "inner.weight.requires_grad was True" in told[1]


def test_what_the_script_sets_between_two_calls_is_the_scripts(mode):
    """A restarted script sets it again; if a person has changed it since, the new value counts."""
    network = Counting()
    of(network).capture()
    network.scale = 0.1
    attributes = of(network)
    assert attributes.capture() == {}
    network.scale = 0.05
    assert attributes.capture() == {"0": {"Counting.scale": 0.05}}


@pytest.mark.parametrize(
    "saved",
    [{"0": {"Counting.gone": 1, "nobody.scale": 1, "Counting.scale": [1]}}, {"7": {"Counting.scale": 1}}],
)
def test_what_the_script_does_not_have_is_left_out(saved):
    """A state is JSON, and without encryption anybody's: nothing is made, and nothing raises."""
    network = Counting()
    of(network).restore(saved, pytest.fail)
    assert not hasattr(network, "gone")
    assert network.scale == 0.5
