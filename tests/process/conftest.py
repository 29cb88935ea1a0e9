import pytest
from supervised import Supervised


@pytest.fixture
def supervise(tmp_path):
    """Starts supervisors in the test's folder; none outlives the test."""
    started = []

    def start(script, *options, **more):
        started.append(Supervised(tmp_path, script, *options, **more))
        return started[-1]

    yield start
    for run in started:
        run.clear_away()
