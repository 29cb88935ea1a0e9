"""Callbacks whose tensors no checkpoint has are found; others are not suspected."""

from __future__ import annotations

import mindspore as ms
import pytest
from mindspore.train import Callback, EarlyStopping, History, LossMonitor, ReduceLROnPlateau
from small import Network, model

from resilient import CheckpointMonitor
from resilient.state.unrestorable import callback_findings

pytestmark = pytest.mark.mindspore


class Average(Callback):
    """Keeps something."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept


class Saved(Average):
    """Takes part."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """Nothing to do."""


def found(callback, trained):
    return list(callback_findings([callback], [trained.train_network]))


KEPT = {
    "a tensor": lambda: ms.Tensor([1.0]),
    "a parameter": lambda: ms.Parameter(ms.Tensor([1.0]), name="average"),
    "by name": lambda: {"weight": ms.Tensor([1.0])},
    "in a row": lambda: [ms.Tensor([1.0])],
    "a network": Network,
}


@pytest.mark.parametrize("kept", KEPT)
def test_what_a_callback_keeps_for_itself_is_named(kept):
    """By the callback and the attribute, in words that say what to do."""
    (sentence,) = found(Average(KEPT[kept]()), model())
    assert sentence.startswith("Average.kept holds tensors that are not trained")
    assert "state_dict()" in sentence


def test_what_is_trained_is_not_suspected():
    """A callback that looks at the network, the optimizer, or one of their weights."""
    trained = model()
    network = trained.train_network
    for kept in (network, network.trainable_params(), network.trainable_params()[0], 3, "text", [1, 2], None):
        assert not found(Average(kept), trained)


def test_who_takes_part_is_not_suspected():
    """Neither a callback with a state of its own, nor MindSpore's own ones, nor ours."""
    own = (
        LossMonitor(),
        History(),
        EarlyStopping(),
        ReduceLROnPlateau(),
        CheckpointMonitor(directory="unused"),
    )
    for callback in (Saved(ms.Tensor([1.0])), *own):
        assert not found(callback, model())
