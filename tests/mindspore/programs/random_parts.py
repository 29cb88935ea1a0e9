"""What a script made up at random is made of: networks, state outside of them, callbacks that remember.

Every part has a ``trace()``: all that it holds, as plain values. Two runs that ended alike have the same
traces.
"""

import collections
import datetime

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.amp import DynamicLossScaler, all_finite
from mindspore.train import Callback, EarlyStopping, History, LossMonitor, ReduceLROnPlateau, TimeMonitor

FEATURES, CLASSES = 4, 3


def plain(value):
    """A value as something whose ``repr`` shows every bit of it."""
    if isinstance(value, (Tensor, Parameter)):
        return plain(value.asnumpy())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes().hex()
    if isinstance(value, np.generic):
        return plain(np.asarray(value))
    if isinstance(value, dict):
        return [(plain(key), plain(one)) for key, one in value.items()]
    if isinstance(value, set):
        return sorted(map(repr, value))
    if isinstance(value, (list, tuple, collections.deque)):
        return [plain(one) for one in value]
    return value


class Network(nn.Cell):
    """Two layers, from a handful of bytes to some hundred thousand; the first can be frozen."""

    def __init__(self, width, frozen, normed):
        super().__init__()
        self.first = nn.Dense(FEATURES, width)
        self.norm = nn.BatchNorm1d(width) if normed else nn.Identity()
        self.second = nn.Dense(width, CLASSES)
        for parameter in self.first.get_parameters():
            parameter.requires_grad = not frozen

    def construct(self, x):
        return self.second(ms.ops.relu(self.norm(self.first(x))))


# Used between the rounds of a loop


class Scaled:
    """MindSpore's own loss scaler, which holds Parameters and is no Cell."""

    def __init__(self, loop):
        self.scaler = DynamicLossScaler(
            scale_value=2.0 ** loop.plan.randrange(4, 40), scale_factor=2, scale_window=3
        )
        self.state = self.scaler

    def before(self, gradients):
        """The gradients as the optimizer gets them; None where they are not finite."""
        scaled = self.scaler.scale(gradients)
        finite = all_finite(scaled)
        self.scaler.adjust(finite)
        return self.scaler.unscale(scaled) if finite else None

    def after(self):
        pass

    def trace(self):
        return plain([self.scaler.scale_value, self.scaler.counter])


class Accumulated:
    """Applies the mean of every few gradients."""

    def __init__(self, loop):
        self.sums = [Parameter(ms.ops.zeros_like(one), name=f"sum_{one.name}") for one in loop.weights]
        self.every, self.count = loop.plan.randrange(2, 5), 0
        self.state = self

    def before(self, gradients):
        self.count += 1
        for total, gradient in zip(self.sums, gradients, strict=True):
            ms.ops.assign_add(total, gradient)
        if self.count % self.every:
            return None
        found = tuple(Tensor(total.asnumpy() / self.every) for total in self.sums)
        for total in self.sums:
            ms.ops.assign(total, ms.ops.zeros_like(total))
        return found

    def after(self):
        pass

    def trace(self):
        return plain([self.sums, self.count])


class Averaged:
    """A moving average of the weights, kept by ``state_dict``."""

    def __init__(self, loop):
        self.weights = loop.weights
        self.values = [one.asnumpy().copy() for one in self.weights]
        self.updates = 0
        self.state = self

    def before(self, gradients):
        return gradients

    def after(self):
        self.updates += 1
        for value, weight in zip(self.values, self.weights, strict=True):
            value *= 0.9
            value += 0.1 * weight.asnumpy()

    def state_dict(self):
        return {"updates": self.updates, **{f"value_{i}": value for i, value in enumerate(self.values)}}

    def load_state_dict(self, state):
        self.updates = int(state["updates"])
        for i, value in enumerate(self.values):
            value[...] = np.asarray(state[f"value_{i}"])

    def trace(self):
        return plain([self.values, self.updates])


BETWEEN_ROUNDS = [Scaled, Accumulated, Averaged]


# Callbacks


class Diary(Callback):
    """Remembers in every kind of attribute, and changes the training by what it remembers."""

    def __init__(self, shared):
        super().__init__()
        self.steps, self.best, self.name, self.nothing = 0, float("inf"), "", None
        self.losses, self.by_epoch, self.seen = shared, {}, set()
        self.window = collections.deque(maxlen=3)
        self.sums, self.pair = np.zeros(2), (0, 0.0)
        self.nested = {"best": {"epoch": -1, "weights": []}, "flags": [True, False]}
        self.at = None
        self.tensor = Tensor(np.zeros(2, np.float32))

    def on_train_step_begin(self, run_context):
        self.pair = (self.steps, float(self.best))

    def on_train_step_end(self, run_context):
        assert self.pair[0] == self.steps, "a step ends that has not begun"
        arguments = run_context.original_args()
        outputs = arguments.net_outputs
        loss = float((outputs[0] if isinstance(outputs, tuple) else outputs).asnumpy())
        self.steps += 1
        self.window.append(loss)
        self.losses.append(loss)
        self.sums += [loss, loss * loss]
        self.tensor = Tensor(self.tensor.asnumpy() + np.float32(loss))
        if loss < self.best:
            self.best, self.name = loss, f"step {self.steps}"
            self.seen.add(self.steps)

    def on_train_epoch_begin(self, run_context):
        self.at = datetime.timedelta(days=run_context.original_args().cur_epoch_num)

    def on_train_epoch_end(self, run_context):
        arguments = run_context.original_args()
        assert self.at == datetime.timedelta(days=arguments.cur_epoch_num), "an epoch ends that has not begun"
        self.by_epoch[arguments.cur_epoch_num] = sum(self.window)
        best = self.nested["best"]
        if self.best < min(self.losses[: -len(self.window)], default=float("inf")):
            best["epoch"] = arguments.cur_epoch_num
            best["weights"] = [one.asnumpy().copy() for one in arguments.train_network.trainable_params()]

    def on_train_end(self, run_context):
        """The best weights are put back, as many callbacks do."""
        weights = run_context.original_args().train_network.trainable_params()
        for parameter, value in zip(weights, self.nested["best"]["weights"], strict=False):
            # Not set_data: a graph that is compiled goes on with the old memory.
            ms.ops.assign(parameter, Tensor(value))

    def trace(self):
        return plain({key: one for key, one in vars(self).items() if not key.startswith("_")})


class OwnDiary(Callback):
    """The same by a ``state_dict`` of its own, which leaves out what it does not want."""

    def __init__(self):
        super().__init__()
        self.count, self.scratch = 0, 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]

    def on_train_step_end(self, run_context):
        self.count += 1
        self.scratch += 1

    def trace(self):
        return [self.count]


def stock_callbacks(plan):
    """One of MindSpore's own, with its trace."""
    early = EarlyStopping("loss", patience=plan.randrange(1, 3), restore_best_weights=plan.random() < 0.5)
    slower = ReduceLROnPlateau("loss", 0.5, plan.randrange(1, 3))
    history = History()
    return plan.choice(
        [
            (early, lambda: plain([early.wait, early.best, early.stopped_epoch])),
            (slower, lambda: plain([slower.wait, slower.best, slower.cooldown_counter])),
            (history, lambda: plain(history.epoch)),
            (LossMonitor(), list),
            (TimeMonitor(), list),
        ]
    )
