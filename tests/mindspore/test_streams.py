"""Whether somebody has drawn from a random stream is seen, at every step and at little cost."""

import random
import subprocess
import sys

import numpy as np
import pytest

from resilient.state import random_streams, twister


def changed(draw):
    before = random_streams.fingerprint()
    draw()
    after = random_streams.fingerprint()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    "draw",
    [
        random.random,
        lambda: random.gauss(0.0, 1.0),
        lambda: [random.getrandbits(32) for _ in range(624)],
        lambda: random.seed(random.random()),
    ],
)
def test_a_draw_from_pythons_stream_is_seen(draw):
    """Also a whole round of the generator, and each of a pair of normal numbers, twice in a row."""
    assert changed(draw) == {random_streams.PYTHON}
    assert changed(draw) == {random_streams.PYTHON}


@pytest.mark.parametrize(
    "draw",
    [
        np.random.random,
        lambda: np.random.standard_normal(12),
        lambda: [np.random.random() for _ in range(312)],
        lambda: np.random.seed(7 + np.random.randint(1000)),
    ],
)
def test_a_draw_from_numpys_stream_is_seen(draw):
    """Also a whole round of the generator, and a new seed."""
    assert changed(draw) == {random_streams.NUMPY}
    assert changed(draw) == {random_streams.NUMPY}


def test_where_nobody_draws_nothing_changes():
    """Nothing is seen where nothing was drawn."""
    assert changed(lambda: None) == set()


def test_the_glance_is_a_quick_one():
    """In this interpreter the generators lie where they are looked for: nothing falls back."""
    version, words, _ = random.getstate()
    address = id(random.getstate.__self__) + object.__basicsize__
    assert version == 3
    assert twister._holds(address, [words[624], *words[:624]])
    generator = np.random.get_state.__self__._bit_generator
    assert twister._numpy_glance(generator) is not twister._official_numpy


def test_another_generator_of_numpys_is_seen_too():
    """A script that has put another generator in the place of NumPy's own is watched all the same."""
    program = (
        "import numpy as np\n"
        "from resilient.state import twister\n"
        "glance = twister.numpy_glance()\n"
        "np.random.set_bit_generator(np.random.PCG64(3))\n"
        "seen = [glance(), glance()]\n"
        "np.random.random()\n"
        "seen += [glance()]\n"
        "assert seen[0] == seen[1] != seen[2], seen\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("address", [None, 0])
def test_pythons_words_are_those_of_its_official_state(address, monkeypatch):
    """Where they are read from memory, after any draws, and where they do not lie as we know it."""
    if address is not None:
        monkeypatch.setattr(twister, "_python_address", lambda: address)
    words = twister.python_words()
    for draws in range(700):
        random.gauss(0, 1) if draws % 5 else random.random()
        assert np.frombuffer(words(), np.uint32).tolist() == list(random.getstate()[1])


@pytest.mark.parametrize("name", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
@pytest.mark.parametrize("present", ["MT19937", "PCG64"])
def test_every_generator_of_numpys_is_put_back(name, present):
    """Whichever the script had put in the place of NumPy's own, and whichever is there now."""
    program = (
        "import json, sys\n"
        "import numpy as np\n"
        "from resilient.state import random_streams as streams\n"
        "name, present = sys.argv[1:]\n"
        "np.random.set_bit_generator(getattr(np.random, name)(3))\n"
        "np.random.standard_normal(3)\n"
        "saved = json.loads(json.dumps(streams.capture_numpy()))\n"
        "wanted = np.random.standard_normal(5).tolist()\n"
        "np.random.set_bit_generator(getattr(np.random, present)(4))\n"
        "streams.restore_numpy({streams.NUMPY: saved})\n"
        "assert np.random.standard_normal(5).tolist() == wanted\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, name, present]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
