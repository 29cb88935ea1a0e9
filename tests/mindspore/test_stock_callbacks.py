"""MindSpore's own callbacks are carried whole, each that it exports."""

from __future__ import annotations

import time

import mindspore as ms
import mindspore.train.callback as callback_package
import numpy as np
import pytest
from mindspore.train import Callback, EarlyStopping, History, LossMonitor, ReduceLROnPlateau
from played_attempts import BestSoFar, Process, next_attempt
from small import SmallNetwork

from resilient.state.stateful_object import PROCESS_BOUND

pytestmark = pytest.mark.mindspore


@pytest.fixture(autouse=True)
def _anew():
    yield
    BestSoFar.shared, BestSoFar.calls = [], 0


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
