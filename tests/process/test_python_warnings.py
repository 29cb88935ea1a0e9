"""Warnings of Python's: the user's wish is about the script, and nobody sees, or dies of, ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from supervised import Supervised

pytestmark = pytest.mark.process

# Something of ours, or of a library that we use, is deprecated; something else is not closed.
FALLS_BEHIND = """
import os, sys, warnings
from supervisor.command import cli, start
original = start._run
def late(*arguments):
    warnings.warn("a deprecation of ours", DeprecationWarning)
    open(os.devnull)
    return original(*arguments)
start._run = late
sys.exit(cli.main())
"""

# Code of one of our modules in the worker, and then the script's own.
WARNS = """
    import os, warnings
    from resilient.worker.session.session import current
    source = "import warnings; warnings.warn('a deprecation of ours', DeprecationWarning)"
    exec(source, {"__name__": "resilient.something"})
    try:
        warnings.warn("the script's own", DeprecationWarning)
        print("not raised")
    except DeprecationWarning:
        print("raised")
"""


@pytest.fixture
def wish(monkeypatch, request):
    """What the user has asked for."""
    name, _, value = request.param.partition("=")
    monkeypatch.setenv(name, value)
    return request.param


@pytest.mark.parametrize(
    "wish", ["PYTHONWARNINGS=error", "PYTHONWARNINGS=default", "PYTHONDEVMODE=1"], indirect=True
)
def test_the_users_filters_are_for_the_script_alone(tmp_path, wish):
    """Ours is neither shown nor raised, in supervisor and worker; the script's own is."""
    run = Supervised(tmp_path, WARNS, program=("-c", FALLS_BEHIND))
    assert run.end() == 0, run.err()
    assert "a deprecation of ours" not in run.err()
    assert "ResourceWarning" not in run.err()
    assert run.out() == ("raised\n" if wish.endswith("error") else "not raised\n")
    assert ("the script's own" in run.err()) == (not wish.endswith("error"))


def test_a_tool_shows_none(tmp_path):
    """`resilient`, in development mode: its output is its own."""
    script = "import warnings, resilient.tools as t; run = t._run\n"
    script += "t._run = lambda argv: (warnings.warn('ours', DeprecationWarning), run(argv))[1]\nt.main()"
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", script, "ls", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ}, check=False)
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr
