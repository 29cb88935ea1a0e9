"""A nest of values comes back as it was: the same types, the same bits, in the objects that are there."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import random
import threading

import mindspore as ms
import numpy as np
import pytest
from small import SmallNetwork

from resilient.state import columns
from resilient.state.nest_reader import LEFT, NestReader
from resilient.state.nest_writer import NestWriter, TooMuchError

pytestmark = pytest.mark.mindspore


class Mode(enum.Enum):
    MAX = 1


@dataclasses.dataclass(frozen=True)
class Result:
    score: float
    epoch: int


Pair = collections.namedtuple("Pair", "first second")


class Meter:
    """Adds up, as tutorials have it."""

    __slots__ = ("__dict__", "total")

    def __init__(self):
        self.total, self.count, self.parts = 0.0, 0, []


class Bomb:
    """Does something when it dies."""

    def __del__(self):
        raise AssertionError("an object was made that runs code")


def written(value, trained=None):
    writer = NestWriter(trained or {})
    node = json.loads(json.dumps(writer.write(value)))
    return node, [bytes(blob) for blob in writer.blobs], writer.left


def again(value, current=None, trained=None):
    node, blobs, _ = written(value, {id(p): name for name, p in (trained or {}).items()})
    return NestReader([memoryview(blob) for blob in blobs], trained or {}).read(node, current)


VALUES = {
    "none": None,
    "truth": True,
    "a number": -0.0,
    "a large number": 2**80,
    "infinity": float("inf"),
    "text": "训练",
    "bytes": b"\x00\xff",
    "complex": 1 + 2j,
    "nested": {"a": [1, (2.5, {"b": {3, 4}})], 5: frozenset({6})},
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "counter": collections.Counter("abba"),
    "deque": collections.deque([1, 2, 3], maxlen=3),
    "a date": datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.timezone.utc),
    "a duration": datetime.timedelta(days=1, microseconds=7),
    "decimal": decimal.Decimal("0.10"),
    "path": pathlib.Path("out/best.ckpt"),
    "range": range(2, 9, 3),
    "enumeration": Mode.MAX,
    "data class": Result(0.5, 3),
    "named tuple": Pair(1, [2]),
    "many losses": [n / 7 for n in range(1000)],
    "many counts": list(range(-500, 500)),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was(name):
    """By value and by type, through JSON."""
    value = VALUES[name]
    found = again(value)
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


ARRAYS = {
    "a scalar": np.float32(0.1),
    "half": np.arange(5, dtype=np.float16),
    "small": np.arange(6, dtype=np.int64).reshape(2, 3),
    "large": np.random.RandomState(0).randn(500, 5).astype(np.float32),
    "empty": np.zeros((0, 3), np.uint8),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "text": np.array(["a", "bc"]),
    "times": np.array(["2026-11-28"], dtype="datetime64[D]"),
    "complex": np.array([1 + 2j]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_bit_for_bit(name):
    """Whatever its dtype, its shape and its order in memory."""
    value = ARRAYS[name]
    found = again(value)
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()


@pytest.mark.parametrize("dtype", [ms.float32, ms.float16, ms.bfloat16, ms.int8, ms.bool_, ms.float64])
def test_tensors_and_parameters_come_back_bit_for_bit(dtype):
    """A Tensor as a Tensor; a parameter with its name, and whether it is trained."""
    tensor = ms.Tensor(np.arange(600), ms.float32).astype(dtype)
    parameter = ms.Parameter(tensor, name="best", requires_grad=False)
    found, kept = again(tensor), again(parameter)
    for one in (found, kept):
        assert one.dtype == dtype
        assert one.asnumpy().tobytes() == tensor.asnumpy().tobytes()
    assert not isinstance(found, ms.Parameter)
    assert isinstance(kept, ms.Parameter)
    assert (kept.name, kept.requires_grad) == ("best", False)


def test_what_the_script_holds_too_is_changed_in_place():
    """Lists, dicts, sets, deques, arrays, parameters, generators and objects stay the objects they are."""
    weight = ms.Parameter(ms.Tensor([1.0]), name="w")
    there = {
        "list": [1],
        "dict": {"inner": [1]},
        "set": {1},
        "deque": collections.deque([1]),
        "array": np.zeros(3),
        "parameter": weight,
        "random": random.Random(1),
        "numpy": np.random.default_rng(1),
        "legacy": np.random.RandomState(1),
        "object": Meter(),
    }
    later = copy.deepcopy(there)
    later["list"].append(2)
    later["dict"]["inner"].append(2)
    later["set"].add(2)
    later["deque"].append(2)
    later["array"][1] = 7
    later["parameter"].set_data(ms.Tensor([5.0]))
    for generator in (later["random"].random, later["numpy"].random, later["legacy"].rand):
        generator()
    later["object"].total, later["object"].count = 2.5, 3
    before, inner = dict(there), there["dict"]["inner"]
    found = again(later, there)
    assert found is there
    assert all(found[name] is before[name] for name in before)
    assert inner == [1, 2]
    assert (there["list"], there["set"], list(there["deque"])) == ([1, 2], {1, 2}, [1, 2])
    assert list(there["array"]) == [0, 7, 0]
    assert float(weight.asnumpy()[0]) == 5.0
    assert there["random"].random() == later["random"].random()
    assert there["numpy"].random() == later["numpy"].random()
    assert there["legacy"].rand() == later["legacy"].rand()
    assert (there["object"].total, there["object"].count) == (2.5, 3)


def test_one_object_under_two_names_stays_one():
    """Also where it holds itself; and two objects that were one in the beginning become two."""
    shared = [1]
    value = {"a": shared, "b": shared}
    value["self"] = value
    found = again(value)
    assert found["a"] is found["b"]
    assert found["self"] is found
    first = [0]
    parted = again({"a": [1], "b": [2]}, {"a": first, "b": first})
    assert (parted["a"], parted["b"]) == ([1], [2])


def test_what_is_trained_is_referred_to_and_not_copied():
    """A parameter that the checkpoint has anyway, and a network with no other."""
    network = SmallNetwork()
    trained = {p.name: p for p in network.get_parameters()}
    node, blobs, left = written([network, *trained.values()], {id(p): name for name, p in trained.items()})
    assert not blobs
    assert not left
    found = NestReader([], trained).read(node, [network])
    assert found[0] is network
    assert all(a is b for a, b in zip(found[1:], trained.values(), strict=True))


def test_a_network_that_is_not_trained_is_put_back_in_place():
    """An average of the weights, as a second network."""
    average = SmallNetwork()
    node, blobs, _ = written(average)
    for parameter in average.get_parameters():
        parameter.set_data(parameter + 1)
    changed = {p.name: p.asnumpy().copy() for p in average.get_parameters()}
    assert NestReader([memoryview(blob) for blob in blobs], {}).read(node, average) is LEFT
    for parameter in average.get_parameters():
        assert np.allclose(parameter.asnumpy() + 1, changed[parameter.name])


def test_what_cannot_be_carried_stays_and_is_named_unless_it_is_harmless():
    """A lock and a file are named; functions, modules and loggers need no word. The rest is carried."""
    lock = threading.Lock()
    value = {"lock": lock, "function": len, "module": np, "count": 3}
    node, _, left = written(value)
    assert left == {"['lock']": "lock"}
    there = {"lock": lock, "function": max, "module": np, "count": 0}
    found = NestReader([], {}).read(node, there)
    assert found == {"lock": lock, "function": max, "module": np, "count": 3}


def test_no_object_is_made_that_could_run_code():
    """Only data classes, named tuples and enumerations are made anew, and none that acts when it dies."""
    bomb = f"{Bomb.__module__}:Bomb"
    for kind in (bomb, "subprocess:Popen", "os:_wrap_close", "nowhere:Nothing"):
        reader = NestReader([], {})
        assert reader.read({"k": "object", "n": 0, "class": kind, "v": {"x": 1}}, None, "there") is LEFT
        assert "there" in reader.lost


def test_a_nest_without_an_end_is_given_up():
    """Rather than that a step takes minutes."""
    deep = []
    for _ in range(100):
        deep = [deep]
    for value in (deep, [[n] for n in range(400_000)]):
        with pytest.raises(TooMuchError):
            written(value)


def test_a_long_list_is_exact_however_it_changes():
    """It grows, is changed in its middle, shrinks, gets another type: the column is always what it is now."""
    kept = columns.Columns()
    values = [n / 3 for n in range(400)]
    edits = (
        lambda: values.extend([1.5] * 700),
        lambda: values.__setitem__(5, -0.0),
        lambda: values.__setitem__(5, 0.0),
        lambda: values.__delitem__(slice(0, 100)),
        lambda: values.append(values.pop(0)),
    )
    for edit in edits:
        edit()
        kept.begin()
        column = kept.of(values)
        assert repr(column.buffer[: len(values)].tolist()) == repr(values)
    values[7] = 1
    kept.begin()
    assert kept.of(values) is None
    tensors = [ms.Tensor(n, ms.float32) for n in range(300)]
    assert [float(t.asnumpy()) for t in again(tensors)] == [float(n) for n in range(300)]
    assert type(again(tensors)[0]) is ms.Tensor


def test_a_long_list_of_rows_is_exact_however_it_changes():
    """A log of dicts or tuples: a row that is changed where it is, and rows with more than plain values."""
    kept = columns.Columns()
    values = [{"loss": n / 3, "epoch": n, "nan": float("nan")} for n in range(300)]
    edits = (
        lambda: values.extend({"loss": 0.5, "text": "\n"} for _ in range(300)),
        lambda: values[4].update(loss=9.0),
        lambda: values.__delitem__(slice(0, 20)),
        lambda: values.append((1, "a", None)),
    )
    for edit in edits:
        edit()
        kept.begin()
        assert kept.of(values).of == columns.ROWS
        assert repr(again(values)) == repr(values)
    values[3]["tensor"] = ms.Tensor(1.0)
    kept.begin()
    assert kept.of(values) is None
    assert float(again(values)[3]["tensor"].asnumpy()) == 1.0


def test_a_boundary_keeps_its_values_while_a_list_goes_on_growing():
    """The buffer that it looks at is not written over."""
    kept = columns.Columns()
    values = [float(n) for n in range(300)]
    first = kept.of(values).buffer
    copied = first[:300].copy()
    values += [9.0] * 500
    kept.begin()
    kept.of(values)
    assert np.array_equal(first[:300], copied)
