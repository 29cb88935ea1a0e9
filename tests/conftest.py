"""How the hypothesis tests draw their examples, whether a test may skip, and in which order tests run.

``make test`` draws the same ones each time, so that a change is what turns it red; ``make fuzz`` draws new
ones, many more of them. With REQUIRE_ALL=1 no test may skip.
"""

import gc
import os
import signal
import tempfile
from pathlib import Path

import computed_once
import pytest
from hypothesis import settings
from no_skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - pytest calls them

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=3000)
# Runs write down how far they have come in the user's home: not in that of the person who runs the tests.
_HOME = tempfile.TemporaryDirectory(prefix="resilient-tests-home-")
os.environ["XDG_CONFIG_HOME"] = _HOME.name
if computed_once.PLACE not in os.environ:
    # The first process of the tests; the others inherit its environment.
    _SHARED = tempfile.TemporaryDirectory(prefix="resilient-tests-shared-")
    os.environ[computed_once.PLACE] = _SHARED.name

# A job in a shell's background ignores them, and so would each process that a test starts and sends one to.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# The folders with the longest tests, which come first: at the end no core waits for a long one that is left.
FIRST = ("mindspore", "process", "kernel", "crash")
# All that collecting imports and makes stays: the garbage collector need not walk through it, then or later.
gc.disable()


def pytest_collection_modifyitems(items):
    """Puts the long tests first."""
    items.sort(key=lambda item: _rank(item.path))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """From here on, the garbage collector looks at what the tests make."""
    gc.freeze()
    gc.enable()


def _rank(path):
    folder = path.relative_to(Path(__file__).parent).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Tells how many faults struck real processes: a test of faults in which none fires proves nothing."""
    reports = terminalreporter.getreports("passed")
    counts = [
        value for report in reports for name, value in report.user_properties if name == "kernel_faults"
    ]
    if counts:
        terminalreporter.write_line(f"faults that struck a real process: {sum(counts):,}")
