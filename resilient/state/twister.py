"""Looks at Python's and NumPy's global Mersenne Twisters where they lie in memory.

To ask for their states copies 625 words each, one Python object a word: 10 and 40 microseconds, where a
small network's step takes a thousand. To see whether somebody has drawn, a glance at the position and the
first words is enough. They lie

    CPython   behind the object's header: index int, then the words (Modules/_randommodule.c)
    NumPy     where ``BitGenerator.ctypes`` says: the words, then the position int

Neither is a promise, so each is compared once with the state as it is given officially. Where the two differ,
or the generator is another one, the official state is what is looked at.
"""

from __future__ import annotations

import ctypes
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np

_WORDS = 624
_WORD_BYTES = 4
_GLANCE_BYTES = 16

Glance = Callable[[], object]


def python_glance() -> Glance:
    """A function whose value changes whenever somebody draws from Python's global stream."""
    address = _python_address()
    if not address:
        return lambda: hash(random.getstate())
    # The index, and the words right behind it; and the second of a pair of normal numbers.
    generator = _python_generator()
    start = _memory(address, _WORD_BYTES + _GLANCE_BYTES)
    return lambda: (start.raw, generator.gauss_next)


def python_words() -> Callable[[], bytes]:
    """A function that gives the 625 words of Python's global stream, as ``random.getstate`` orders them."""
    address = _python_address()
    if not address:
        return lambda: np.array(random.getstate()[1], dtype=np.uint32).tobytes()
    index, words = _memory(address, _WORD_BYTES), _memory(address + _WORD_BYTES, _WORDS * _WORD_BYTES)
    return lambda: words.raw + index.raw


def _python_generator() -> Any:
    return random.getstate.__self__  # type: ignore[attr-defined]


def _python_address() -> int:
    """Where its index and words lie; 0 where they do not lie as we know it."""
    address = id(_python_generator()) + object.__basicsize__
    version, words, _ = random.getstate()
    return address if version == 3 and _holds(address, [words[_WORDS], *words[:_WORDS]]) else 0


def numpy_glance() -> Glance:
    """The same for NumPy's, except for one draw that is not seen: of the second of a pair of normal numbers
    that were computed together."""
    legacy = np.random.get_state.__self__  # type: ignore[attr-defined]
    known: Any = None
    glance: Glance = _official_numpy

    def look() -> object:
        nonlocal known, glance
        # The script may put another generator in its place.
        if legacy._bit_generator is not known:
            known = legacy._bit_generator
            glance = _numpy_glance(known)
        return glance()

    return look


def _numpy_glance(generator: Any) -> Glance:
    official: Any = np.random.get_state(legacy=False)
    if official["bit_generator"] != "MT19937":
        return _official_numpy
    address, state = int(generator.ctypes.state_address), official["state"]
    if not _holds(address, [*map(int, state["key"]), int(state["pos"])]):
        return _official_numpy
    position = _memory(address + _WORDS * _WORD_BYTES, _WORD_BYTES)
    start = _memory(address, _GLANCE_BYTES)
    return lambda: (position.raw, start.raw)


def _official_numpy() -> object:
    # As text it would show an array's first and last words alone: its bytes, wherever one lies.
    return pickle.dumps(np.random.get_state(legacy=False))


def _memory(address: int, size_bytes: int) -> Any:
    """The bytes at an address, whenever their ``raw`` is read."""
    return (ctypes.c_char * size_bytes).from_address(address)


def _holds(address: int, words: list[int]) -> bool:
    found = ctypes.string_at(address, len(words) * _WORD_BYTES)
    return found == np.array(words, dtype=np.uint32).tobytes()
