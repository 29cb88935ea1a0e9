"""How the hypothesis tests draw their examples, and whether a test may skip.

``make test`` draws the same ones each time, so that a change is what turns it red; ``make fuzz`` draws new
ones, many more of them. With REQUIRE_ALL=1 no test may skip.
"""

import os
import tempfile

import pytest
from hypothesis import settings
from no_skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - pytest calls them

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=3000)
# Runs write down how far they have come in the user's home: not in that of the person who runs the tests.
_HOME = tempfile.TemporaryDirectory(prefix="resilient-tests-home-")
os.environ["XDG_CONFIG_HOME"] = _HOME.name

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Tells how many faults struck real processes: a test of faults in which none fires proves nothing."""
    reports = terminalreporter.getreports("passed")
    counts = [
        value for report in reports for name, value in report.user_properties if name == "kernel_faults"
    ]
    if counts:
        terminalreporter.write_line(f"faults that struck a real process: {sum(counts):,}")
