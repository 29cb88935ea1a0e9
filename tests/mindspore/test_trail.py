"""The random streams behind each call and evaluation, noted and followed."""

from __future__ import annotations

import json
import random

import mindspore
import numpy as np
import pytest
from mindspore import nn
from mindspore.train import Model

from resilient.state import execution
from resilient.state.cell_modes import CellModes
from resilient.state.trail import CALLS, EVALUATIONS, Trail

NOBODY = CellModes({})


def draws():
    """The next numbers of both streams."""
    return random.random(), np.random.random()


def after_json(trail):
    """What another process reads of it."""
    return Trail(json.loads(json.dumps(trail.to_json())))


def test_each_is_followed_to_its_own_place():
    """Calls and evaluations, in whatever order."""
    trail, wanted = Trail(), {}
    for kind, position in ((CALLS, 0), (EVALUATIONS, 0), (CALLS, 1), (EVALUATIONS, 1)):
        draws()
        trail.note(kind, position, NOBODY)
        wanted[kind, position] = draws()
    for (kind, position), numbers in reversed(wanted.items()):
        after_json(trail).follow(kind, position, NOBODY, print)
        assert draws() == numbers


def test_what_is_not_known_changes_nothing():
    """A call that failed before one that is over, and all that lies further."""
    trail = Trail()
    trail.note(CALLS, 2, NOBODY)
    before = random.getstate()
    for kind, position in ((CALLS, 0), (CALLS, 1), (CALLS, 3), (EVALUATIONS, 0)):
        after_json(trail).follow(kind, position, NOBODY, print)
        assert random.getstate() == before


def test_what_is_noted_again_is_followed_to_its_new_place():
    """A call that is made again: of what came after the first try nothing is known any more."""
    trail = Trail()
    for position in (0, 1, 2):
        trail.note(CALLS, position, NOBODY)
    draws()
    trail.note(CALLS, 1, NOBODY)
    wanted = draws()
    after_json(trail).follow(CALLS, 2, NOBODY, print)
    assert draws() != wanted
    after_json(trail).follow(CALLS, 1, NOBODY, print)
    assert draws() == wanted


def test_a_script_that_does_not_draw_pays_for_one_state():
    """A thousand calls later it is still one of each stream."""
    trail = Trail()
    for position in range(1000):
        trail.note(CALLS, position, NOBODY)
    assert len(trail.to_json()["states"]) == len(trail.to_json()["calls"][0])


def test_a_document_without_one_is_an_empty_one():
    """States that were saved before there were any, and those of stock MindSpore."""
    Trail(None).follow(CALLS, 0, NOBODY, print)
    Trail({}).follow(EVALUATIONS, 0, NOBODY, print)


def test_how_mindspore_computes_is_followed_and_told():
    """What a setting was after a call it is again, in words; one that MindSpore does not take is named."""
    kept = execution.capture()
    told = []
    try:
        mindspore.set_context(mode=mindspore.GRAPH_MODE)
        trail = Trail()
        trail.note(CALLS, 0, NOBODY)
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        after_json(trail).follow(CALLS, 0, NOBODY, told.append)
        assert mindspore.get_context("mode") == mindspore.GRAPH_MODE
        assert told == [
            "MindSpore's context has graph mode again, as it was in the state; it had PyNative mode"
        ]
        execution.restore({"jit_syntax_level": 17, "unknown": 1}, told.append)
        assert "made with jit_syntax_level=17 in MindSpore's context; now it has" in told[1]
        assert len(told) == 2
    finally:
        execution.restore(kept, told.append)


def test_which_cells_train_is_followed():
    """Behind each call and evaluation; a part may predict while the rest trains, as a frozen one does."""
    network = nn.SequentialCell(nn.Dense(2, 2), nn.BatchNorm1d(2))
    modes, trail = CellModes({0: [network]}), Trail()
    network.set_train()
    network[1].set_train(False)
    trail.note(CALLS, 0, modes)
    network.set_train(False)
    trail.note(EVALUATIONS, 0, modes)
    after_json(trail).follow(CALLS, 0, modes, print)
    assert [cell.training for cell in (network, network[0], network[1])] == [True, True, False]
    after_json(trail).follow(EVALUATIONS, 0, modes, print)
    assert not any(cell.training for cell in (network, network[0], network[1]))
    modes.restore({"0": "1"})
    assert not network.training, "a network with other cells is left as it is"


@pytest.mark.parametrize("version", ["today", "earlier"])
def test_a_model_remembers_that_it_has_evaluated(version):
    """``fit`` evaluates at an epoch's end. The next step trains, also in the process that resumes there."""
    network = nn.SequentialCell(nn.Dense(2, 2), nn.BatchNorm1d(2))
    before, after = (Model(network, nn.MSELoss(), nn.SGD(network.trainable_params())) for _ in range(2))
    before._check_network_mode(network, False)
    modes = CellModes({0: [network]}, before).capture()
    if version == "earlier":
        del modes["model"]
    network.set_train()
    CellModes({0: [network]}, after).restore(modes)
    assert not network.training, "the state's own modes, for hooks that look at them"
    after._check_network_mode(network, True)
    assert network[1].training
