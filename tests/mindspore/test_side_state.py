"""What callbacks hold is carried: one that a later attempt makes anew goes on where the last one was."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import ClassVar

import mindspore as ms
import mindspore.train.callback as callback_package
import numpy as np
import pytest
from mindspore.train import Callback, EarlyStopping, History, LossMonitor, ReduceLROnPlateau
from small import SmallNetwork, dataset, model

from resilient.state.finished_calls import FinishedCalls
from resilient.state.side_state import SideState
from resilient.state.snapshot import SECTION_KEPT, Progress, Recovered, TensorValue
from resilient.state.stateful_object import PROCESS_BOUND

pytestmark = pytest.mark.mindspore

PROGRESS = Progress(call=0, call_step=3, steps_per_epoch=8)


class Best(Callback):
    """As users write them."""

    shared: ClassVar = []
    calls = 0

    def __init__(self, patience=3, best=float("inf"), history=None):
        super().__init__()
        self.patience, self.best = patience, best
        self.history = [] if history is None else history
        self.weights = None
        self.by_epoch = {}
        self.began = time.time()
        self.log, self.hook, self.network = logging.getLogger("x"), print, None

    def train(self):
        """What a training does to it."""
        self.best = np.float32(0.25)
        self.history += [0.5, 0.25]
        self.by_epoch[1] = {"loss": ms.Tensor(0.5), "when": [1, (2, 3)]}
        self.weights = [np.arange(1000, dtype=np.float32)]
        self.shared.append(1)
        type(self).calls += 1
        self.added = {"later"}
        return self


class Process:
    """One attempt: its own memory of beginnings, and what it has complained of."""

    def __init__(self, *callbacks, things=()):
        self.callbacks, self.things = callbacks, list(things)
        self.said = []
        self.side_state = SideState(self.said.append)
        self.side_state.meet([*callbacks, *(thing for _, thing in self.things)], {})

    def capture(self, trained=None, ended=None):
        kept = self.side_state.capture(self.callbacks, self.things, trained or {}, ended or FinishedCalls())
        document = json.loads(json.dumps(kept.document))
        tensors = {
            (SECTION_KEPT, str(n)): TensorValue("UInt8", (blob.size,), memoryview(blob.tobytes()))
            for n, blob in enumerate(kept.blobs)
        }
        return Recovered(tensors, document, PROGRESS, "a test")

    def restore(self, recovered, trained=None):
        self.side_state.restore(recovered, self.callbacks, self.things, trained or {})
        return self


@pytest.fixture(autouse=True)
def _anew():
    yield
    Best.shared, Best.calls = [], 0


def next_attempt(recovered, *callbacks):
    """The classes of a new process are as they were written."""
    Best.shared, Best.calls = [], 0
    process = Process(*callbacks)
    return process.restore(recovered)


def test_everything_that_training_has_changed_is_put_back():
    """Numbers, lists, dicts, arrays, sets, what was added, what the class itself holds; without a word."""
    first = Process(Best(), LossMonitor())
    first.callbacks[0].train()
    fresh = Best()
    second = next_attempt(first.capture(), LossMonitor(), fresh)
    assert type(fresh.best) is np.float32
    assert (fresh.best, fresh.history, fresh.added) == (0.25, [0.5, 0.25], {"later"})
    assert float(fresh.by_epoch[1]["loss"].asnumpy()) == 0.5
    assert fresh.by_epoch[1]["when"] == [1, (2, 3)]
    assert np.array_equal(fresh.weights[0], np.arange(1000, dtype=np.float32))
    assert (Best.shared, Best.calls) == ([1], 1)
    assert fresh.hook is print
    assert not first.said
    assert not second.said


def test_a_list_that_the_script_holds_too_is_changed_in_place():
    """But not one that the training has put in its place."""
    own, other = [], []
    first = Process(Best(history=[]), Best(history=[]))
    first.callbacks[0].history.append(1)
    first.callbacks[1].history = [2]
    next_attempt(first.capture(), Best(history=own), replaced := Best(history=other))
    assert own == [1]
    assert replaced.history == [2]
    assert other == []


def test_what_the_script_has_changed_since_wins():
    """A patience that training never touches silently; a beginning that it has changed with a word. A
    container goes on with the training's content: a time in it would be new at each start.
    """
    first = Process(Best())
    first.callbacks[0].train()
    fresh = Best(patience=9, best=0.5, history=[7])
    second = next_attempt(first.capture(), fresh)
    assert fresh.patience == 9
    assert fresh.best == 0.5
    assert fresh.history == [0.5, 0.25]
    assert len(second.said) == 2
    assert any("Best.best: " in text and "0.5" in text for text in second.said)


def test_a_time_of_this_process_is_not_replaced_by_one_of_the_last():
    """What a callback has measured in its beginning is measured anew by each process."""
    first = Process(Best())
    first.callbacks[0].began -= 5.0
    first.callbacks[0].hook, first.callbacks[0].best = time.monotonic(), time.time()
    fresh = Best()
    second = Process(fresh)
    began, hook, best = fresh.began, time.monotonic(), time.time()
    fresh.hook, fresh.best = hook, best
    second.restore(first.capture())
    assert (fresh.began, fresh.hook, fresh.best) == (began, hook, best)
    assert not second.said


def test_a_state_of_its_own_wins():
    """state_dict() and load_state_dict() say all there is."""

    class Mine(Best):
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
    one = Best()
    one.lock, one.thread = threading.Lock(), threading.Thread()
    with open(tmp_path / "log", "w") as one.file:
        process = Process(one)
        one.train()
        recovered = process.capture()
        process.capture()
    (sentence,) = process.said
    for part in ("lock (lock)", "thread (Thread)", "file (TextIOWrapper)", "state_dict()"):
        assert part in sentence
    next_attempt(recovered, fresh := Best())
    assert fresh.best == 0.25


def test_references_to_what_is_trained_need_no_word_and_no_copy():
    """The network, its model, its dataset, its parameters and another callback of the call."""
    trained = model()
    network = trained.train_network
    names = {id(p): p.name for p in network.get_parameters()}
    one, other = Best(), Best()
    one.network, one.model, one.data, one.other = network, trained, dataset(), other
    one.parameters = network.trainable_params()
    process = Process(one, other)
    recovered = process.capture(names)
    assert not recovered.blobs()
    assert '"k": "parameter"' not in json.dumps(recovered.document)
    assert not process.said
    fresh, sibling = Best(), Best()
    fresh.network, fresh.other, fresh.parameters = network, sibling, network.trainable_params()
    Process(fresh, sibling).restore(recovered, {p.name: p for p in network.get_parameters()})
    assert fresh.network is network
    assert fresh.other is sibling
    assert all(a is b for a, b in zip(fresh.parameters, network.trainable_params(), strict=True))


def test_an_average_of_the_weights_is_carried():
    """As tensors by name, or as a second network that the script makes again."""
    first = Process(Best(), Best())
    first.callbacks[0].weights = {"w": ms.Parameter(ms.Tensor([1.5, 2.5]), name="w")}
    first.callbacks[1].network = average = SmallNetwork()
    next_attempt(first.capture(), fresh := Best(), second := Best())
    assert isinstance(fresh.weights["w"], ms.Parameter)
    assert list(fresh.weights["w"].asnumpy()) == [1.5, 2.5]
    assert second.network is None
    again = Best()
    again.network = SmallNetwork()
    next_attempt(first.capture(), Best(), again)
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


def test_what_a_finished_call_has_left_is_there_for_who_passes_it_by():
    """Small values; of large ones it is said that they are not."""
    first = Process(Best())
    first.callbacks[0].train().weights[0] = np.arange(5000.0)
    ended = FinishedCalls()
    ended.add(0, first.side_state.at_end(first.callbacks, (), {}), first.said.append)
    recovered = Process(Best()).capture(ended=ended)
    later = Recovered(recovered.tensors, recovered.document, Progress(2, 1, 8), "a later call")
    fresh = Best()
    second = Process(fresh)
    second.side_state.restore_ended(later, 0, second.callbacks, (), {}, later.ended())
    assert (fresh.best, fresh.history) == (0.25, [0.5, 0.25])
    assert fresh.weights == [None]
    assert any("only small values" in text for text in second.said)
    assert later.ended().of_call(1) is None


def test_what_a_call_left_is_known_after_a_second_restart_too():
    """The first one resumes at the very end of the call, the second one in a later call."""
    first = Process(Best())
    first.callbacks[0].train()
    at_its_end = first.capture()
    second, log = Process(Best()), at_its_end.ended()
    second.side_state.restore_ended(at_its_end, PROGRESS.call, second.callbacks, (), {}, log)
    of_second = Process().capture(ended=log)
    later = Recovered(of_second.tensors, of_second.document, Progress(2, 1, 8), "a later call")
    fresh = Best()
    third = Process(fresh)
    third.side_state.restore_ended(later, PROGRESS.call, third.callbacks, (), {}, later.ended())
    assert (fresh.best, fresh.history) == (0.25, [0.5, 0.25])


def changed(callback):
    """MindSpore's callbacks after some training, as their own code leaves them."""
    if isinstance(callback, EarlyStopping):
        network = SmallNetwork()
        callback.best_weights_param_dict = network.parameters_dict()
        callback.wait, callback.best, callback.stopped_epoch = 2, np.float32(0.5), 4
    if isinstance(callback, ReduceLROnPlateau):
        callback.wait, callback.best, callback.cooldown_counter = 1, 0.5, 3
    if isinstance(callback, History):
        callback.epoch, callback.history = {"epoch": [1, 2]}, {"loss": [0.5, 0.25]}
    if isinstance(callback, LossMonitor):
        callback._last_print_time = 17
    if isinstance(callback, callback_package.TimeMonitor):
        callback.data_time_sum = 0.5
    if isinstance(callback, callback_package.ModelCheckpoint):
        callback._last_triggered_step, callback._latest_ckpt_file_name = 16, "net-2_8.ckpt"
    return callback


CARRIED = {
    "EarlyStopping": lambda: EarlyStopping(restore_best_weights=True),
    "ReduceLROnPlateau": ReduceLROnPlateau,
    "History": History,
    "LossMonitor": LossMonitor,
    "TimeMonitor": callback_package.TimeMonitor,
    "ModelCheckpoint": lambda: callback_package.ModelCheckpoint(directory="."),
}
"""What of MindSpore's changes in training."""

NOTHING_TO_CARRY = {
    "Callback": Callback,
    "LambdaCallback": lambda: callback_package.LambdaCallback(on_train_end=print),
    "LearningRateScheduler": lambda: callback_package.LearningRateScheduler(lambda lr, step: lr),
}
NO_CALLBACK = {"CheckpointConfig", "RunContext"}


def test_each_of_mindspores_callbacks_is_known():
    """Carried, with nothing to carry, or bound to its process. A new one has to be looked at."""
    known = {*CARRIED, *NOTHING_TO_CARRY, *PROCESS_BOUND, *NO_CALLBACK}
    assert set(callback_package.__all__) <= known


@pytest.mark.parametrize("name", CARRIED)
def test_mindspores_callbacks_are_carried_whole(name, tmp_path, monkeypatch):
    """Every attribute that training changes; EarlyStopping's best weights among them, ready to be loaded."""
    monkeypatch.chdir(tmp_path)
    first = Process(CARRIED[name]())
    changed(first.callbacks[0])
    fresh = CARRIED[name]()
    second = next_attempt(first.capture(), fresh)
    assert not first.said
    assert not second.said
    there, wanted = vars(fresh), vars(first.callbacks[0])
    assert there.keys() == wanted.keys()
    for key, value in wanted.items():
        if key == "best_weights_param_dict":
            assert there[key].keys() == value.keys()
            for parameter_name, parameter in value.items():
                assert isinstance(there[key][parameter_name], ms.Parameter)
                assert np.array_equal(there[key][parameter_name].asnumpy(), parameter.asnumpy())
            assert not ms.load_param_into_net(SmallNetwork(), there[key])[0]
        elif isinstance(value, (int, float, str, list, dict)) and not isinstance(value, bool):
            clock = isinstance(value, float) and abs(value - time.time()) < 1000
            assert clock or there[key] == value, key


@pytest.mark.parametrize("name", NOTHING_TO_CARRY)
def test_the_others_need_no_word(name):
    """Functions are what the script makes them."""
    process = Process(NOTHING_TO_CARRY[name]())
    Process(NOTHING_TO_CARRY[name]()).restore(process.capture())
    assert not process.said


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
    sound = Process(Best().train()).capture()
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
        fresh = Best()
        second = Process(fresh)
        document = {**sound.document, "callbacks": callbacks}
        second.restore(Recovered(sound.tensors, document, PROGRESS, "a forgery"))
        assert second.said, callbacks
        assert fresh.patience == 3
