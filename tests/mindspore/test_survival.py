"""However a worker dies in the middle of an epoch, the run ends with the weights of one that never failed.

A run dies several deaths, each in a step of its own. Whatever one of them lost would be missing at the end,
and each shows by itself which step ran again and where the next attempt resumed.
"""

import pytest
from survival import Outcome, outcome, uninterrupted

ALL_STEPS = list(range(1, 19))

pytestmark = pytest.mark.mindspore

# These leave the callback that they come in. Those behind it have not run, so the step runs again, with all.
LEAVING = ("exception", "exit3")
# These wait until the step is complete: it is saved, and none runs again.
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
SUDDEN = ("os_exit7", "os_exit0", "SIGKILL", "segv", "abort")

# The step of each death: in the middle of an epoch.
EVERY_DEATH = {
    "exception": 2,
    "SIGTERM": 3,
    "os_exit7": 4,
    "SIGKILL": 5,
    "exit3": 8,
    "SIGINT": 9,
    "segv": 10,
    "SIGHUP": 11,
    "os_exit0": 14,
    "SIGUSR1": 15,
    "abort": 16,
    "SIGUSR2": 17,
}
BOTH_KINDS = {"exception": 10, "SIGKILL": 15}


def run_of(api: str, mode: str, deaths: dict[str, int]) -> Outcome:
    """The run that dies all of these; it ends as one that never failed."""
    found = outcome(api, mode, ",".join(f"{death}@{step}" for death, step in deaths.items()))
    assert found.result == uninterrupted(api, mode), found.said
    assert len(found.resumed) == len(deaths), found.said
    return found


def check(api: str, mode: str, deaths: dict[str, int], death: str) -> None:
    """Of one death: the step that it came in runs again if it was not complete, and nothing else does."""
    found, step = run_of(api, mode, deaths), deaths[death]
    # A loop of one's own dies between two steps.
    again = api != "custom" and death not in SIGNALS
    assert found.resumed[list(deaths).index(death)] == (step - 1 if again else step), found.said
    assert found.steps.count(step) == (2 if again else 1), found.steps


@pytest.mark.parametrize("death", [*LEAVING, *SIGNALS, *SUDDEN])
@pytest.mark.parametrize("mode", ["graph", "pynative"])
def test_train_survives(death, mode):
    """``Model.train``: every way to die, in both execution modes."""
    check("train", mode, EVERY_DEATH, death)


@pytest.mark.parametrize("death", ["exception", "SIGKILL"])
@pytest.mark.parametrize("api", ["fit", "calls", "custom", "generator"])
def test_every_way_to_train_survives(api, death):
    """``fit``, a loop of ``train`` calls, a loop of one's own, and a generator that draws from NumPy."""
    check(api, "graph", BOTH_KINDS, death)


@pytest.mark.parametrize(
    ("api", "mode", "deaths"),
    [
        *(("train", mode, EVERY_DEATH) for mode in ("graph", "pynative")),
        *((api, "graph", BOTH_KINDS) for api in ("fit", "calls", "custom", "generator")),
    ],
)
def test_no_other_step_runs_again(api, mode, deaths):
    """Each step is run, in order, and twice at most: in the attempt that dies in it, and in the next."""
    steps = run_of(api, mode, deaths).steps
    assert sorted(set(steps)) == ALL_STEPS
    assert steps == sorted(steps)
    assert {step for step in ALL_STEPS if steps.count(step) > 1} <= set(deaths.values())
