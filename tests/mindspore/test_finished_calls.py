"""What a finished call left in its objects is there again in an attempt that skips the call."""

from __future__ import annotations

import gc

import mindspore as ms
import numpy as np
import pytest
from mindspore.train import LambdaCallback
from played_attempts import PROGRESS, BestSoFar, Process
from small import SmallNetwork

from resilient.state.finished_calls import FinishedCalls
from resilient.state.hidden import hidden_parameters
from resilient.state.script_variables import reached_by
from resilient.state.snapshot import Progress, Recovered

pytestmark = pytest.mark.mindspore


@pytest.fixture(autouse=True)
def _anew():
    yield
    BestSoFar.shared, BestSoFar.calls = [], 0


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
    first = Process(one := BestSoFar())
    one.train().weights[0] = np.arange(5000.0)
    ended = end_call(first, 0, FinishedCalls())
    assert ended.length < 4096
    later = later_state(first, ended)
    fresh = BestSoFar()
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


@pytest.mark.parametrize("more", [0, 3])
def test_a_long_list_that_callbacks_of_several_calls_fill_is_there_in_each(more):
    """Whether or not the resumed call has added to it already; each call has a callback of its own."""

    def begin_call(process, values):
        process.callbacks = [LambdaCallback(on_train_step_end=lambda context: values.append(0.5))]
        process.things = [("reached", reached_by(process.callbacks))]
        process.side_state.meet([*process.callbacks, process.things[0][1]], {})

    first, values, ended = Process(), [], FinishedCalls()
    begin_call(first, values)
    values += [0.5] * 600
    end_call(first, 0, ended)
    begin_call(first, values)
    values += [0.25] * more
    recovered = first.capture(ended=ended)
    later = Recovered(recovered.tensors, recovered.document, Progress(1, more, 8), "the second call")
    second, again, log = Process(), [], later.ended()
    begin_call(second, again)
    pass_by(second, later, 0, log)
    assert again == values, "the resumed step's, as it is told"
    (sentence,) = second.said
    assert "because a later call was given it too" in sentence
    begin_call(second, again)
    second.side_state.restore(later, second.callbacks, second.things, {}, log)
    assert again == values
    assert second.said == [sentence]


def test_a_call_that_is_too_much_for_the_log_has_the_newest_values():
    """A word says that they are not those of the end of that call."""
    first = Process(one := BestSoFar())
    one.history += [{"step": step, "loss": [0.5] * 100} for step in range(600)]
    ended = end_call(first, 0, FinishedCalls())
    assert ended.length < 4096
    assert any("resumed step" in text for text in first.said)
    later = later_state(first, ended)
    fresh = BestSoFar()
    second = Process(fresh)
    pass_by(second, later, 0, later.ended())
    assert fresh.history == one.history
    assert not second.said


def test_a_log_of_before_is_read():
    """It has no numbers: small values are put back, the loss of large ones is named, and nothing is loaded
    in part."""
    best_class = f"{BestSoFar.__module__}:BestSoFar"
    line = {
        "callbacks": [],
        "clocks": [0.0, 0.0],
        "things": [
            ["#0", {"class": f"{__name__}:Average", "n": 0, "state": {"k": "dict", "n": 1, "type": "dict",
             "v": [["updates", 3], ["w", {"k": "lost"}]]}}],
            ["#1", {"class": best_class, "n": 2, "values": {"best": 0.5, "weights": {"k": "lost"}},
             "initial": {}, "moved": []}],
        ],
    }  # fmt: skip
    ended = FinishedCalls()
    assert ended.add(0, line)
    later = later_state(Process(), ended)
    average, best = Average(), BestSoFar()
    second = Process(things=[("#0", average), ("#1", best)])
    pass_by(second, later, 0, later.ended())
    assert (average.updates, best.best) == (0, 0.5)
    assert sorted(second.said) == [
        f"{path} cannot be put back: its training call is over, and only small values were kept of that"
        for path in ("Average", "BestSoFar.weights")
    ]


def test_values_of_any_name_are_kept_of_a_finished_call():
    """Also those with a name that the log's own JSON uses."""
    first = Process(one := BestSoFar())
    one.t, one.k, one.v, one.n = 0.5, "kind", [1], 7
    one.average = Average()
    one.average.t, one.average.k, one.average.values = 0.25, "same", {}
    ended = end_call(first, 0, FinishedCalls())
    later = later_state(first, ended)
    fresh = BestSoFar()
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
    first = Process(BestSoFar())
    first.callbacks[0].train()
    at_its_end = first.capture()
    second, log = Process(BestSoFar()), at_its_end.ended()
    pass_by(second, at_its_end, PROGRESS.call, log)
    later = later_state(second, log)
    fresh = BestSoFar()
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
