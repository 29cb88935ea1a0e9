"""Random streams: Python's, NumPy's and the framework's generator, as JSON and back."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import mindspore
import numpy as np


def capture() -> dict[str, Any]:
    """The state of every global random stream that can be read, as a JSON-able value."""
    version, internal, gauss = random.getstate()
    return {
        "python": [version, _pack(np.array(internal, dtype=np.uint32)), gauss],
        "numpy": capture_numpy(),
        "mindspore": _pack(mindspore.get_rng_state().asnumpy()),
    }


def capture_numpy() -> list[Any]:
    """NumPy's global stream (its legacy Mersenne Twister)."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return [name, _pack(keys), int(position), int(has_gauss), float(gauss)]


def restore(streams: Mapping[str, Any]) -> None:
    """Puts every stream of :func:`capture` back."""
    restore_global(streams)
    restore_framework(streams)


def resume(document: Mapping[str, Any]) -> None:
    """Puts back the streams of a state's boundary, once its data pipeline has begun to run."""
    if not document["pipeline_draws"]:
        restore_global(document["streams"])
    # Otherwise its threads draw from the global streams at times of their own: they have theirs already.
    restore_framework(document["streams"])


def restore_framework(streams: Mapping[str, Any]) -> None:
    """Puts the framework's own generator back."""
    generator = np.frombuffer(base64.b64decode(streams["mindspore"]), dtype=np.uint8)
    mindspore.set_rng_state(mindspore.Tensor(generator.copy()))


def restore_global(streams: Mapping[str, Any]) -> None:
    """Puts back the streams that a data pipeline's Python code shares with the script."""
    version, internal, gauss = streams["python"]
    words = tuple(int(word) for word in np.frombuffer(base64.b64decode(internal), dtype=np.uint32))
    random.setstate((version, words, gauss))
    name, keys, position, has_gauss, cached = streams["numpy"]
    numbers = np.frombuffer(base64.b64decode(keys), dtype=np.uint32)
    np.random.set_state((name, numbers, position, has_gauss, cached))


def fingerprint() -> tuple[object, ...]:
    """Changes when somebody draws from Python's or NumPy's global stream; cheap enough for every step."""
    _, keys, position, has_gauss, _ = np.random.get_state(legacy=True)
    return hash(random.getstate()), int(position), int(has_gauss), np.asarray(keys)[:4].tobytes()


def _pack(words: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(words).tobytes()).decode("ascii")
