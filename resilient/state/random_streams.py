"""Random streams: Python's, NumPy's and the framework's generator, as JSON and back.

A stream that a state does not hold, because stock MindSpore has saved it, stays as it is.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import mindspore
import numpy as np

from resilient.state import twister
from resilient.state.counters import from_json, to_json

PYTHON = "python"
NUMPY = "numpy"
MINDSPORE = "mindspore"
_MERSENNE_TWISTER = "MT19937"


def capture() -> dict[str, Any]:
    """The state of every global random stream that can be read, as a JSON-able value."""
    return {
        PYTHON: [random.Random.VERSION, _encode(_python_words()), _python_generator.gauss_next],
        NUMPY: capture_numpy(),
        MINDSPORE: _pack(mindspore.get_rng_state().asnumpy()),
    }


def capture_numpy() -> Any:
    """NumPy's global stream: its Mersenne Twister, or what the script has put in its place."""
    state: Any = np.random.get_state(legacy=False)
    name = state["bit_generator"]
    if name != _MERSENNE_TWISTER:
        return {name: to_json(state)}
    keys, position = state["state"]["key"], state["state"]["pos"]
    return [name, _pack(keys), int(position), int(state["has_gauss"]), float(state["gauss"])]


def restore(streams: Mapping[str, Any]) -> None:
    """Puts every stream of :func:`capture` back."""
    restore_global(streams)
    restore_framework(streams)


def resume(document: Mapping[str, Any]) -> None:
    """Puts back the streams of a state's boundary, once its data pipeline has begun to run.

    A stream that the pipeline draws from stays as it is: its threads draw at times of their own, and have
    begun to, from where the training call began.
    """
    saved, draws = document["streams"], document["pipeline_draws"]
    if PYTHON not in draws:
        restore_python(saved)
    if NUMPY not in draws:
        restore_numpy(saved)
    restore_framework(saved)


def restore_framework(streams: Mapping[str, Any]) -> None:
    """Puts the framework's own generator back."""
    if MINDSPORE not in streams:
        return
    generator = np.frombuffer(base64.b64decode(streams[MINDSPORE]), dtype=np.uint8)
    mindspore.set_rng_state(mindspore.Tensor(generator.copy()))


def restore_global(streams: Mapping[str, Any]) -> None:
    """Puts back the streams that a data pipeline's Python code shares with the script."""
    restore_python(streams)
    restore_numpy(streams)


def restore_python(streams: Mapping[str, Any]) -> None:
    """Puts Python's own generator back."""
    if PYTHON not in streams:
        return
    version, internal, gauss = streams[PYTHON]
    words = tuple(int(word) for word in np.frombuffer(base64.b64decode(internal), dtype=np.uint32))
    random.setstate((version, words, gauss))


def restore_numpy(streams: Mapping[str, Any]) -> None:
    """Puts NumPy's global generator back."""
    if NUMPY not in streams:
        return
    saved = streams[NUMPY]
    if isinstance(saved, dict):
        name, state = next((name, from_json(state)) for name, state in saved.items())
    else:
        name, keys, position, has_gauss, cached = saved
        numbers = np.frombuffer(base64.b64decode(keys), dtype=np.uint32)
        state = name, numbers, position, has_gauss, cached
    if np.random.get_state(legacy=False)["bit_generator"] != name:
        # NumPy takes no state of another generator than the one that is there.
        np.random.set_bit_generator(getattr(np.random, name)())
    np.random.set_state(state)


_python_generator: Any = random.getstate.__self__  # type: ignore[attr-defined]
_python_words = twister.python_words()
_python_glance, _numpy_glance = twister.python_glance(), twister.numpy_glance()


def fingerprint() -> dict[str, object]:
    """What changes when somebody draws from a global stream, by stream; cheap enough for every step."""
    return {PYTHON: _python_glance(), NUMPY: _numpy_glance()}


def _pack(words: Any) -> str:
    return _encode(np.ascontiguousarray(words).tobytes())


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
