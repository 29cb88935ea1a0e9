"""What callbacks hold is carried: one that a later attempt makes anew has the values of the last one."""

from __future__ import annotations

import json
import threading
import time

import mindspore as ms
import mindspore.train.callback as callback_package
import numpy as np
import pytest
from mindspore.train import Callback, EarlyStopping, LossMonitor
from played_attempts import PROGRESS, BestSoFar, Process, next_attempt
from small import SmallNetwork, dataset, model

from resilient.state.snapshot import Recovered

pytestmark = pytest.mark.mindspore


@pytest.fixture(autouse=True)
def _anew():
    yield
    BestSoFar.shared, BestSoFar.calls = [], 0


def test_everything_that_training_has_changed_is_put_back():
    """Numbers, lists, dicts, arrays, sets, what was added, what the class itself holds; without a word."""
    first = Process(BestSoFar(), LossMonitor())
    first.callbacks[0].train()
    fresh = BestSoFar()
    second = next_attempt(first.capture(), LossMonitor(), fresh)
    assert type(fresh.best) is np.float32
    assert (fresh.best, fresh.history, fresh.added) == (0.25, [0.5, 0.25], {"later"})
    assert float(fresh.by_epoch[1]["loss"].asnumpy()) == 0.5
    assert fresh.by_epoch[1]["when"] == [1, (2, 3)]
    assert np.array_equal(fresh.weights[0], np.arange(1000, dtype=np.float32))
    assert (BestSoFar.shared, BestSoFar.calls) == ([1], 1)
    assert fresh.hook is print
    assert not first.said
    assert not second.said


def test_a_list_that_the_script_holds_too_is_changed_in_place():
    """But not one that the training has put in its place."""
    own, other = [], []
    first = Process(BestSoFar(history=[]), BestSoFar(history=[]))
    first.callbacks[0].history.append(1)
    first.callbacks[1].history = [2]
    next_attempt(first.capture(), BestSoFar(history=own), replaced := BestSoFar(history=other))
    assert own == [1]
    assert replaced.history == [2]
    assert other == []


def test_what_the_script_has_changed_since_wins():
    """A patience that training never touches silently; a beginning that it has changed with a word. A
    container goes on with the training's content: a time in it would be new at each start.
    """
    first = Process(BestSoFar())
    first.callbacks[0].train()
    fresh = BestSoFar(patience=9, best=0.5, history=[7])
    second = next_attempt(first.capture(), fresh)
    assert fresh.patience == 9
    assert fresh.best == 0.5
    assert fresh.history == [0.5, 0.25]
    assert len(second.said) == 2
    assert any("BestSoFar.best: " in text and "0.5" in text for text in second.said)


def test_a_time_of_this_process_is_not_replaced_by_one_of_the_last():
    """What a callback has measured in its beginning is measured anew by each process."""
    first = Process(BestSoFar())
    first.callbacks[0].began -= 5.0
    first.callbacks[0].hook, first.callbacks[0].best = time.monotonic(), time.time()
    fresh = BestSoFar()
    second = Process(fresh)
    began, hook, best = fresh.began, time.monotonic(), time.time()
    fresh.hook, fresh.best = hook, best
    second.restore(first.capture())
    assert (fresh.began, fresh.hook, fresh.best) == (began, hook, best)
    assert not second.said


def test_a_state_of_its_own_wins():
    """state_dict() and load_state_dict() say all there is."""

    class Mine(BestSoFar):
        def state_dict(self):
            return {"best": self.best, "weights": self.weights}

        def load_state_dict(self, state):
            vars(self).update(state)

    first = Process(Mine())
    first.callbacks[0].train()
    next_attempt(first.capture(), fresh := Mine())
    assert (fresh.best, fresh.history) == (0.25, [])
    assert np.array_equal(fresh.weights[0], np.arange(1000, dtype=np.float32))


def test_what_cannot_be_carried_is_named_once_for_each_callback(tmp_path):
    """A lock, a file and a thread in one sentence, however often it is looked at; the rest is carried."""
    one = BestSoFar()
    one.lock, one.thread = threading.Lock(), threading.Thread()
    with open(tmp_path / "log", "w") as one.file:
        process = Process(one)
        one.train()
        recovered = process.capture()
        process.capture()
    (sentence,) = process.said
    for part in ("lock (lock)", "thread (Thread)", "file (TextIOWrapper)", "state_dict()"):
        assert part in sentence
    next_attempt(recovered, fresh := BestSoFar())
    assert fresh.best == 0.25


def test_references_to_what_is_trained_need_no_word_and_no_copy():
    """The network, its model, its dataset, its parameters and another callback of the call."""
    trained = model()
    network = trained.train_network
    names = {id(p): p.name for p in network.get_parameters()}
    one, other = BestSoFar(), BestSoFar()
    one.network, one.model, one.data, one.other = network, trained, dataset(), other
    one.parameters = network.trainable_params()
    process = Process(one, other)
    recovered = process.capture(names)
    assert not recovered.blobs()
    assert '"k": "parameter"' not in json.dumps(recovered.document)
    assert not process.said
    fresh, sibling = BestSoFar(), BestSoFar()
    fresh.network, fresh.other, fresh.parameters = network, sibling, network.trainable_params()
    Process(fresh, sibling).restore(recovered, {p.name: p for p in network.get_parameters()})
    assert fresh.network is network
    assert fresh.other is sibling
    assert all(a is b for a, b in zip(fresh.parameters, network.trainable_params(), strict=True))


def test_an_average_of_the_weights_is_carried():
    """As tensors by name, or as a second network that the script makes again."""
    first = Process(BestSoFar(), BestSoFar())
    first.callbacks[0].weights = {"w": ms.Parameter(ms.Tensor([1.5, 2.5]), name="w")}
    first.callbacks[1].network = average = SmallNetwork()
    next_attempt(first.capture(), fresh := BestSoFar(), second := BestSoFar())
    assert isinstance(fresh.weights["w"], ms.Parameter)
    assert list(fresh.weights["w"].asnumpy()) == [1.5, 2.5]
    assert second.network is None
    again = BestSoFar()
    again.network = SmallNetwork()
    next_attempt(first.capture(), BestSoFar(), again)
    for ours, theirs in zip(again.network.get_parameters(), average.get_parameters(), strict=True):
        assert np.array_equal(ours.asnumpy(), theirs.asnumpy())


def test_what_an_older_version_has_saved_is_put_back():
    """The counters of MindSpore's callbacks by name, and a callback's own state."""

    class Mine(Callback):
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            self.state = state

    old = {
        "callbacks": [{"wait": 2, "best": 0.5}, None, {"state_dict": {"dict": [["n", 3]]}}],
        "streams": {},
    }
    stopping, mine = EarlyStopping(), Mine()
    Process(stopping, LossMonitor(), mine).restore(Recovered({}, old, PROGRESS, "an old file"))
    assert (stopping.wait, stopping.best) == (2, 0.5)
    assert mine.state == {"n": 3}


def test_what_is_bound_to_its_process_is_made_anew_but_for_what_a_subclass_adds():
    """A signal's handler, or a file that is open, is that of this process."""

    class Exit(callback_package.OnRequestExit):
        def __init__(self):
            super().__init__(save_ckpt=False, directory=".")
            self.seen = 0

    first = Process(Exit())
    first.callbacks[0].seen, first.callbacks[0].stop_train = 3, True
    next_attempt(first.capture(), fresh := Exit())
    assert fresh.seen == 3
    assert fresh.stop_train is False


def test_a_state_that_makes_no_sense_ends_no_training():
    """Without encryption it is anybody's JSON: whatever it is, it is said, and the script's objects stay."""
    sound = Process(BestSoFar().train()).capture()
    (one,) = sound.document["callbacks"]
    nonsense = (
        [3],
        [{"class": 7}],
        [{**one, "n": "x", "values": 5}],
        [{**one, "values": {"best": {"k": "nothing"}}}],
        [{**one, "values": {"history": {"k": "array", "n": 1, "dtype": "O", "shape": [9], "b": "AA=="}}}],
        [{**one, "values": {"history": {"k": "same", "v": [1]}}}],
        [{**one, "initial": None}],
    )
    for callbacks in nonsense:
        fresh = BestSoFar()
        second = Process(fresh)
        document = {**sound.document, "callbacks": callbacks}
        second.restore(Recovered(sound.tensors, document, PROGRESS, "a forgery"))
        assert second.said, callbacks
        assert fresh.patience == 3
