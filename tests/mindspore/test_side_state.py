"""What callbacks hold is carried: one that a later attempt makes anew goes on where the last one was."""

from __future__ import annotations

import gc
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
from resilient.state.hidden import hidden_parameters
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
        log = FinishedCalls()
        self.side_state.restore(recovered, self.callbacks, self.things, trained or {}, log)
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


def later_state(process, ended, *running, call=2):
    """The state of a process that is in a later call, which was given what is running."""
    process.callbacks, process.things = (), [(f"#{n}", one) for n, one in enumerate(running)]
    recovered = process.capture(ended=ended)
    return Recovered(recovered.tensors, recovered.document, Progress(call, 1, 8), "a later call")


def end_call(process, call, ended):
    process.side_state.end_call(call, process.callbacks, process.things, {}, ended)
    return ended


def pass_by(process, recovered, call, ended):
    """A resumed process passes by a call that is over."""
    process.side_state.restore_ended(recovered, call, process.callbacks, process.things, {}, ended)


class Average:
    """As users write them: large arrays, and a count, by a state_dict of its own."""

    def __init__(self, size=5000):
        self.values, self.updates = {"w": np.zeros(size)}, 0

    def update(self, value):
        self.values["w"] += value
        self.updates += 1

    def state_dict(self):
        return {"updates": self.updates, **self.values}

    def load_state_dict(self, state):
        self.updates = state["updates"]
        for name in self.values:
            self.values[name][...] = state[name]


def test_what_a_finished_call_has_left_is_there_for_who_passes_it_by():
    """Small values in the log; large ones too, for as long as the script holds the object."""
    first = Process(one := Best())
    one.train().weights[0] = np.arange(5000.0)
    ended = end_call(first, 0, FinishedCalls())
    assert ended.length < 4096
    later = later_state(first, ended)
    fresh = Best()
    second = Process(fresh)
    log = later.ended()
    pass_by(second, later, 0, log)
    assert (fresh.best, fresh.history) == (0.25, [0.5, 0.25])
    assert np.array_equal(fresh.weights[0], np.arange(5000.0))
    assert not any("put back" in text for text in second.said)
    assert later.ended().of_call(1) is None


@pytest.mark.parametrize("make", [Average, lambda: [ms.Parameter(np.zeros(5000, np.float32))]])
def test_an_object_of_a_finished_call_has_its_last_values_again_whatever_its_size(make):
    """By its own state, or as a list, which Python cannot refer to weakly."""
    one = make()
    values = (lambda it: it.values["w"]) if make is Average else (lambda it: it[0].asnumpy())
    first = Process(things=[("#0", one)])
    values(one)[:] = 3.0
    ended = end_call(first, 0, FinishedCalls())
    later = later_state(first, ended, [1])
    fresh, log = make(), later.ended()
    second = Process(things=[("#0", fresh)])
    pass_by(second, later, 0, log)
    assert (values(fresh) == 3.0).all()
    assert not second.said
    # And the next attempt has them from this one.
    third_state = later_state(second, log, call=3)
    third = Process(things=[("#0", make())])
    pass_by(third, third_state, 0, third_state.ended())
    assert (values(third.things[0][1]) == 3.0).all()


def test_many_calls_over_one_object_keep_its_large_values_once():
    """The newest; the small values of each call stay in the log."""
    one, ended = Average(), FinishedCalls()
    process = Process(things=[("#0", one)])
    for call in range(1500):
        one.update(1.0)
        end_call(process, call, ended)
    later = later_state(process, ended, call=1500)
    assert sum(len(blob) for blob in later.blobs()) < 5000 * 8 + 4 * ended.length + 65536
    fresh = Average()
    second = Process(things=[("#0", fresh)])
    log = later.ended()
    pass_by(second, later, 3, log)
    assert (fresh.values["w"] == 1500.0).all()
    pass_by(second, later, 1499, log)
    (sentence,) = second.said
    assert sentence.startswith("Average has the values of the resumed step")


def test_what_the_script_does_to_it_between_the_calls_is_not_done_twice():
    """When the resumed call begins, the object is put back once more, into the same arrays."""
    one = Average()
    first = Process(things=[("#0", one)])
    one.update(1.0)
    ended = end_call(first, 0, FinishedCalls())
    one.update(10.0)
    later = later_state(first, ended)
    fresh, log = Average(), later.ended()
    second = Process(things=[("#0", fresh)])
    pass_by(second, later, 0, log)
    array = fresh.values["w"]
    fresh.update(10.0)
    second.side_state.restore(later, (), [], {}, log)
    assert fresh.values["w"] is array
    assert ((array == 11.0).all(), fresh.updates) == (True, 2)


@pytest.mark.parametrize("make", [Average, lambda: {"w": np.zeros(5000)}])
def test_an_object_that_the_script_has_let_go_of_is_not_kept(make):
    """Nor does the log keep it alive; a later attempt is told what it cannot have."""
    one, ended = make(), FinishedCalls()
    process = Process(things=[("#0", one)])
    end_call(process, 0, ended)
    assert len(process.capture(ended=ended).blobs()) == 2
    process.things.clear()
    del one
    gc.collect()
    later = later_state(process, ended)
    assert len(later.blobs()) == 1
    second = Process(things=[("#0", fresh := make())])
    pass_by(second, later, 0, later.ended())
    assert (fresh if isinstance(fresh, dict) else fresh.values)["w"].sum() == 0.0
    assert any("only small values" in text for text in second.said)
    assert not any("Error" in text for text in second.said)


def test_a_variable_that_a_loop_has_left_behind_does_not_take_the_values_of_what_it_stood_for():
    """A resumed script passes by that loop, so it has no such variable. Nor is there anything to say."""

    def made(value):
        return ms.Parameter(np.full(5000, value, np.float32), name="sum")

    def fresh():
        return [made(0.0), made(0.0), ms.Parameter(np.zeros(3, np.float32), name="small")]

    rows = [made(3.0), made(4.0), ms.Parameter(np.ones(3, np.float32), name="small")]
    first = Process(things=[("left", rows[1]), ("small", rows[2]), ("rows", rows)])
    again = fresh()
    second = Process(things=[("rows", again)])
    second.restore(first.capture())
    assert [float(row.asnumpy()[2]) for row in again] == [3.0, 4.0, 1.0]
    assert not second.said
    # The same where the list's own call was passed by before.
    log = FinishedCalls()
    end_call(first := Process(things=[("rows", rows)]), 0, log)
    later = later_state(first, log, rows[1], rows)
    third = Process(things=[("rows", again := fresh())])
    pass_by(third, later, 0, later.ended())
    assert [float(row.asnumpy()[2]) for row in again] == [3.0, 4.0, 1.0]
    assert not any("put back" in text or "not used" in text for text in third.said)
    # And where the loop that left it behind was passed by as well.
    log = FinishedCalls()
    end_call(first := Process(things=[("left", rows[1]), ("small", rows[2]), ("rows", rows)]), 0, log)
    later = later_state(first, log)
    fourth = Process(things=[("rows", again := fresh())])
    pass_by(fourth, later, 0, later.ended())
    assert [float(row.asnumpy()[2]) for row in again] == [3.0, 4.0, 1.0]
    assert not fourth.said


def test_an_object_that_a_running_call_has_too_is_kept_once():
    """And is put back where its first call is passed by."""
    one = Average()
    process = Process(things=[("average", one)])
    one.update(2.0)
    ended = end_call(process, 0, FinishedCalls())
    later = later_state(process, ended, one)
    assert len(later.blobs()) == 2
    second = Process(things=[("average", fresh := Average())])
    pass_by(second, later, 0, later.ended())
    assert (fresh.values["w"] == 2.0).all()
    assert any("a later call was given it too" in text for text in second.said)


def test_a_call_that_is_too_much_for_the_log_has_the_newest_values():
    """A word says that they are not those of the end of that call."""
    first = Process(one := Best())
    one.history += [{"step": step, "loss": [0.5] * 100} for step in range(600)]
    ended = end_call(first, 0, FinishedCalls())
    assert ended.length < 4096
    assert any("resumed step" in text for text in first.said)
    later = later_state(first, ended)
    fresh = Best()
    second = Process(fresh)
    pass_by(second, later, 0, later.ended())
    assert fresh.history == one.history
    assert not second.said


def test_a_log_of_before_is_read():
    """It has no numbers: small values are put back, the loss of large ones is named, and nothing is loaded
    in part."""
    line = {
        "callbacks": [],
        "clocks": [0.0, 0.0],
        "things": [
            ["#0", {"class": f"{__name__}:Average", "n": 0, "state": {"k": "dict", "n": 1, "type": "dict",
             "v": [["updates", 3], ["w", {"k": "lost"}]]}}],
            ["#1", {"class": f"{__name__}:Best", "n": 2, "values": {"best": 0.5, "weights": {"k": "lost"}},
             "initial": {}, "moved": []}],
        ],
    }  # fmt: skip
    ended = FinishedCalls()
    assert ended.add(0, line)
    later = later_state(Process(), ended)
    average, best = Average(), Best()
    second = Process(things=[("#0", average), ("#1", best)])
    pass_by(second, later, 0, later.ended())
    assert (average.updates, best.best) == (0, 0.5)
    assert sorted(second.said) == [
        f"{path} cannot be put back: its training call is over, and only small values were kept of that"
        for path in ("Average", "Best.weights")
    ]


def test_values_of_any_name_are_kept_of_a_finished_call():
    """Also those with a name that the log's own JSON uses."""
    first = Process(one := Best())
    one.t, one.k, one.v, one.n = 0.5, "kind", [1], 7
    one.average = Average()
    one.average.t, one.average.k, one.average.values = 0.25, "same", {}
    ended = end_call(first, 0, FinishedCalls())
    later = later_state(first, ended)
    fresh = Best()
    fresh.average = Average()
    pass_by(Process(fresh), later, 0, later.ended())
    assert (fresh.average.t, fresh.average.k, fresh.average.values) == (0.25, "same", {})
    assert (fresh.t, fresh.k, fresh.v, fresh.n) == (0.5, "kind", [1], 7)


def test_a_network_that_lost_its_large_values_is_said_to_have_lost_them():
    """It has such parameters; and no name has an empty part."""
    network = SmallNetwork()
    name = next(p.name for p in network.get_parameters())
    saved = {"class": f"{SmallNetwork.__module__}:SmallNetwork", "n": 0, "initial": {}, "moved": []}
    saved["values"] = {"": {"k": "cell", "n": 0, "v": [[name, {"k": "lost"}], ["other", 1]]}}
    ended = FinishedCalls()
    ended.add(0, {"callbacks": [], "things": [["network", saved]]})
    later = later_state(Process(), ended)
    second = Process(things=[("network", network)])
    pass_by(second, later, 0, later.ended())
    lost, missing = sorted(second.said, key=lambda text: "no such" in text)
    assert lost.startswith(f"SmallNetwork.{name} cannot be put back: its training call is over")
    assert missing == "SmallNetwork.other cannot be put back: the network has no such parameter"


def test_what_a_call_left_is_known_after_a_second_restart_too():
    """The first one resumes at the very end of the call, the second one in a later call."""
    first = Process(Best())
    first.callbacks[0].train()
    at_its_end = first.capture()
    second, log = Process(Best()), at_its_end.ended()
    pass_by(second, at_its_end, PROGRESS.call, log)
    later = later_state(second, log)
    fresh = Best()
    third = Process(fresh)
    pass_by(third, later, PROGRESS.call, later.ended())
    assert (fresh.best, fresh.history) == (0.25, [0.5, 0.25])


def test_hidden_parameters_of_a_finished_loop_are_one_object_for_all_its_calls():
    """They are there as long as their cell, and not longer."""

    class Owner(ms.nn.Cell):
        def __init__(self):
            super().__init__()
            self.rows = {"kept": [ms.Parameter(np.zeros(5000, np.float32), name="kept")]}

    cell, ended = Owner(), FinishedCalls()
    first = Process(things=hidden_parameters([cell]))
    for call in range(2):
        first.things = hidden_parameters([cell])
        end_call(first, call, ended)
    cell.rows["kept"][0].asnumpy()[:] = 2.0
    later = later_state(first, ended)
    assert len(later.blobs()) == 2
    again, log = Owner(), later.ended()
    second = Process(things=hidden_parameters([again]))
    pass_by(second, later, 1, log)
    assert (again.rows["kept"][0].asnumpy() == 2.0).all()
    assert not second.said


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
