import pytest
from played import mirror_with
from saver_bench import SaverBench
from slots import write


@pytest.fixture
def bench():
    """A saver with no store yet."""
    made = SaverBench()
    yield made
    made.saver.close()
    made.children.clear_away()


@pytest.fixture
def held(bench):
    """A saver with its store open, and a mirror that holds the steps 1, 2 and 3 in its three slots."""
    bench.opened()
    bench.mirror, _ = mirror_with()
    bench.hold(bench.mirror)
    bench.slots = [write(bench.mirror, step) for step in (1, 2, 3)]
    assert bench.asked == []
    return bench
