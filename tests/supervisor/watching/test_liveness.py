"""Who hangs and who does not: a judgment over values, with a clock that moves when it is told to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.wire.heartbeat import Beat, Phase
from supervisor.edges.vitals import Vitals
from supervisor.watching import liveness
from supervisor.watching.liveness import Hang, HangPolicy, Liveness, Silence, is_hang, limit_s

AUTO, OFF, FIVE = HangPolicy(), HangPolicy(0.0), HangPolicy(5.0)
RECURRENT = (Phase.STEP, Phase.DATA, Phase.CALLBACKS, Phase.EVALUATING)
ONCE = (Phase.STARTING, Phase.IMPORTING, Phase.SCRIPT, Phase.COMPILING, Phase.OVER)


def silence(phase, silent_s, quiet_s=None, samples=0, longest_s=0.0):
    return Silence(phase, silent_s, silent_s if quiet_s is None else quiet_s, samples, longest_s)


# The judgment


@pytest.mark.parametrize("phase", RECURRENT)
@pytest.mark.parametrize(
    ("samples", "longest_s", "limit"),
    [(0, 0.0, 1800.0), (19, 7.0, 1800.0), (20, 0.001, 60.0), (20, 7.0, 70.0), (10**6, 400.0, 4000.0)],
)
def test_a_limit_is_learned_from_what_was_seen(phase, samples, longest_s, limit):
    """Ten times a high quantile, not below a minute; half an hour until twenty such silences have ended."""
    assert limit_s(AUTO, silence(phase, 0.0, None, samples, longest_s)) == limit
    assert not is_hang(AUTO, silence(phase, limit, None, samples, longest_s))
    assert is_hang(AUTO, silence(phase, limit + 1, None, samples, longest_s))


@pytest.mark.parametrize("phase", ONCE)
def test_nothing_is_learned_where_things_happen_once(phase):
    """Half an hour without any activity, however short earlier ones were; with a given S ten times that."""
    assert limit_s(AUTO, silence(phase, 0.0, None, 1000, 0.001)) == 1800.0
    assert limit_s(HangPolicy(5.0), silence(phase, 0.0)) == 600.0
    assert limit_s(HangPolicy(100.0), silence(phase, 0.0)) == 1000.0


@pytest.mark.parametrize("phase", [*ONCE, Phase.SAVING])
@pytest.mark.parametrize("policy", [AUTO, FIVE])
def test_who_is_at_work_does_not_hang_where_nothing_is_known(phase, policy):
    """A script that prepares its data for a day is alive; one that then falls still is not."""
    day_s = 86_400.0
    assert not is_hang(policy, silence(phase, day_s, quiet_s=5.0))
    assert is_hang(policy, silence(phase, day_s, quiet_s=1801.0))


def test_a_limit_that_was_learned_waits_for_who_is_at_work():
    """Code that is run for the first time after a thousand steps gets half an hour, if it works."""
    known = silence(Phase.CALLBACKS, 61.0, None, 1000, 0.002)
    assert is_hang(AUTO, known)
    assert not is_hang(AUTO, replace(known, quiet_s=3.0))
    assert not is_hang(AUTO, replace(known, silent_s=1800.0, quiet_s=3.0))
    assert is_hang(AUTO, replace(known, silent_s=1801.0, quiet_s=3.0))


@pytest.mark.parametrize("phase", RECURRENT)
def test_a_limit_that_was_given_is_taken_at_its_word(phase):
    """``--hang-timeout 5``: five seconds for a step, whatever was seen, and whatever it is busy with."""
    assert not is_hang(FIVE, silence(phase, 5.0, 0.0, 1000, 100.0))
    assert is_hang(FIVE, silence(phase, 5.1, 0.0, 1000, 100.0))


def test_a_slow_disk_gets_its_time():
    """To kill a worker that waits for its checkpoint heals no disk: ten minutes at least."""
    assert limit_s(AUTO, silence(Phase.SAVING, 0.0, None, 20, 0.5)) == 600.0
    assert limit_s(AUTO, silence(Phase.SAVING, 0.0, None, 20, 100.0)) == 1000.0
    assert limit_s(AUTO, silence(Phase.SAVING, 0.0, None, 19, 0.5)) == 1800.0
    assert limit_s(FIVE, silence(Phase.SAVING, 0.0)) == 600.0


silences = st.builds(
    lambda phase, silent_s, share, samples, longest_s: Silence(
        phase, silent_s, share * silent_s, samples, longest_s
    ),
    st.sampled_from(Phase),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.integers(0, 1000),
    st.floats(0, 1e4),
)
policies = st.sampled_from([AUTO, OFF, FIVE, HangPolicy(1e4)])


@given(policies, silences, st.floats(0, 1e6))
def test_a_hang_does_not_become_alive_by_lasting(policy, one, more_s):
    """Judged again later, with nothing heard or seen since, a hang is still one."""
    later = replace(one, silent_s=one.silent_s + more_s, quiet_s=one.quiet_s + more_s)
    assert not is_hang(policy, one) or is_hang(policy, later)


@given(policies, silences)
def test_nobody_hangs_within_the_limit(policy, one):
    """Neither where hangs are not looked for, nor before the limit that is told with the hang."""
    if is_hang(policy, one):
        assert policy.on
        assert one.silent_s > limit_s(policy, one) > 0
    assert not is_hang(OFF, one)


# From look to look


class Worker:
    """A worker as it is seen from outside: its pages, its vitals, and the time that passes for both of us."""

    def __init__(self, policy=FIVE, samples=0, longest_s=0.0):
        self.now_s = 1000.0
        self.beat = Beat(Phase.STARTING, 0, 0)
        self.seen = (samples, longest_s)
        self.vitals: Vitals | None = Vitals("S", waited_s={1: 0.0, 2: 0.0})
        self.reads = 0
        self.liveness = Liveness(self, policy, self.read_vitals, self.now_s)

    def read(self):
        return self.beat

    def samples(self, phase):
        return self.seen[0]

    def longest(self, phase, quantile):
        return self.seen[1]

    def read_vitals(self):
        self.reads += 1
        return self.vitals

    def beats(self, phase=Phase.STEP, step=7):
        self.beat = Beat(phase, step, round(self.now_s * 1e9))

    def waits_for_a_cpu(self, seconds):
        waited = {thread: before + seconds * (thread == 2) for thread, before in self.vitals.waited_s.items()}
        self.vitals = replace(self.vitals, waited_s=waited)

    def works(self, cpu_s=0.0, io_bytes=0):
        cpu_s += self.vitals.cpu_s
        self.vitals = replace(self.vitals, cpu_s=cpu_s, io_bytes=self.vitals.io_bytes + io_bytes)

    def look_until(self, end_s, meanwhile=lambda passed_s: None):
        """Looks whenever it is wanted: the first hang, and how long after this call it was found."""
        began_s = self.now_s
        while self.now_s < began_s + end_s:
            passed_s = self.liveness.next_look_s - self.now_s
            self.now_s += passed_s
            meanwhile(passed_s)
            hang = self.liveness.look(self.now_s)
            if hang is not None:
                return hang, self.now_s - began_s
        return None


def test_a_silence_that_is_too_long_is_a_hang():
    """It is found soon after its limit, and told with its place."""
    worker = Worker()
    worker.beats(Phase.CALLBACKS, 41)
    hang, after_s = worker.look_until(60)
    assert hang == Hang(worker.beat, pytest.approx(after_s), 5.0)
    assert (hang.phase, hang.step) == (Phase.CALLBACKS, 41)
    assert 5.0 < after_s <= 5.0 + 5.0 / 4


@pytest.mark.parametrize(("state", "stopped"), [("T", True), ("t", False), ("D", False), ("S", False)])
def test_one_that_only_has_to_be_woken_is_told_apart(state, stopped):
    """A signal stopped it; a debugger ("t") or the kernel ("D") is another matter."""
    worker = Worker()
    worker.vitals = replace(worker.vitals, state=state)
    worker.beats()
    hang, _ = worker.look_until(60)
    assert hang.stopped is stopped


def test_who_beats_is_alive_and_not_looked_into():
    """As long as there is a new beat at each look, nothing else is read."""
    worker = Worker()
    for step in range(1000):
        worker.beats(step=step)
        worker.now_s = worker.liveness.next_look_s
        assert worker.liveness.look(worker.now_s) is None
    assert worker.reads == 0


def test_where_hangs_are_not_looked_for_there_are_no_looks():
    """``--hang-timeout 0``: no timer, and no hang if somebody looks all the same."""
    worker = Worker(OFF)
    assert worker.liveness.next_look_s is None
    assert worker.liveness.look(1e9) is None
    assert worker.reads == 0


@given(st.floats(0.1, 1e5))
def test_looks_are_neither_rare_nor_frequent(timeout_s):
    """Between half a second and five seconds apart."""
    worker = Worker(HangPolicy(timeout_s))
    for _ in range(5):
        before_s = worker.now_s = worker.liveness.next_look_s
        worker.liveness.look(worker.now_s)
        assert 0.5 <= round(worker.liveness.next_look_s - before_s, 6) <= 5.0


def test_a_worker_that_never_beats_hangs_at_its_start():
    """One that is stuck before it could say anything is found by the limit of the start."""
    hang, after_s = Worker().look_until(1000)
    assert (hang.phase, hang.step, hang.limit_s) == (Phase.STARTING, 0, 600.0)
    assert after_s > 600.0


def test_time_in_which_we_did_not_run_does_not_count():
    """Everything was frozen for a day: neither the silence before it nor that after it is longer for it."""
    worker = Worker()
    worker.beats()
    assert worker.look_until(2.0) is None
    worker.now_s += 86_400
    assert worker.liveness.look(worker.now_s) is None
    _, after_s = worker.look_until(60)
    assert 5.0 - 2.0 - 2.0 < after_s < 5.0


def test_a_beat_right_before_everything_was_frozen():
    """It was not seen before the freeze, and is old after it: the silence is what is left of it."""
    worker = Worker()
    worker.now_s = worker.liveness.next_look_s
    worker.liveness.look(worker.now_s)
    worker.now_s += 0.1
    worker.beats()
    worker.now_s += 3600
    assert worker.liveness.look(worker.now_s) is None
    hang, _ = worker.look_until(60)
    assert hang.silent_s < 5.0 + 2.0


def test_a_thread_that_waits_for_a_cpu_makes_no_hang():
    """Nine tenths of the time one thread was ready and was not run: what was seen of it counts a tenth."""
    worker = Worker()
    worker.beats()
    _, after_s = worker.look_until(1000, lambda passed_s: worker.waits_for_a_cpu(0.9 * passed_s))
    # Only the first of the looks has nothing to compare with.
    assert after_s > 30.0


def test_who_is_being_debugged_does_not_hang():
    """Nor does the time count afterwards in which a debugger held it."""
    worker = Worker()
    worker.beats()
    worker.vitals = replace(worker.vitals, traced=True)
    assert worker.look_until(86_400) is None
    worker.vitals = replace(worker.vitals, traced=False)
    _, after_s = worker.look_until(60)
    assert after_s > 4.0


def test_a_debugger_that_came_before_the_first_look_makes_no_hang():
    """The beat was old when it was first seen: who is being debugged now does not hang for it."""
    worker = Worker()
    worker.beats()
    worker.vitals = replace(worker.vitals, traced=True)
    worker.now_s += 100.0
    worker.liveness.next_look_s = worker.now_s
    assert worker.look_until(600) is None


@pytest.mark.parametrize(
    ("cpu_share", "bytes_per_s", "alive"),
    [(0.02, 0, True), (0.0, 10_000, True), (0.005, 100, False), (0.0, 0, False)],
)
def test_a_script_at_work_is_alive_for_hours(cpu_share, bytes_per_s, alive):
    """Above one hundredth of a core, or a page of I/O a second; below that it has its limit."""
    worker = Worker(AUTO)
    worker.beats(Phase.SCRIPT)
    found = worker.look_until(
        4 * 3600, lambda passed_s: worker.works(cpu_share * passed_s, round(bytes_per_s * passed_s))
    )
    assert (found is None) is alive


def test_work_that_stops_is_found_out():
    """From then on the limit runs, and not from the beginning of the phase."""
    worker = Worker(AUTO)
    worker.beats(Phase.SCRIPT)
    assert worker.look_until(4 * 3600, lambda passed_s: worker.works(passed_s)) is None
    hang, after_s = worker.look_until(3600)
    assert 1800 <= after_s < 1800 + 15
    assert hang.silent_s > 4 * 3600 + 1790


def test_a_busy_step_is_given_the_high_limit():
    """A learned limit of a minute passes; a loop that spins for ever does not get through."""
    worker = Worker(AUTO, samples=100, longest_s=0.01)
    worker.beats()
    hang, after_s = worker.look_until(3600, lambda passed_s: worker.works(passed_s))
    assert hang.limit_s == 60.0
    assert 1800 < after_s < 1800 + 10
    worker.beats()
    _, after_s = worker.look_until(3600)
    assert 60 < after_s < 60 + 10


def test_a_worker_that_has_ended_does_not_hang():
    """Its end is told elsewhere."""
    worker = Worker()
    worker.beats()
    worker.vitals = None
    assert worker.look_until(100) is None


@pytest.mark.parametrize("at_ns", [0, 2**63, 2**64 - 1])
def test_a_time_that_makes_no_sense_is_no_way_out(at_ns):
    """A beat from before the machine was started, or from far ahead, is one that has just been seen."""
    worker = Worker()
    worker.beat = Beat(Phase.STEP, 3, at_ns)
    hang, after_s = worker.look_until(60)
    assert math.isfinite(hang.silent_s)
    assert after_s < 5.0 + 2.5


def test_threads_come_and_go():
    """A new thread's earlier waiting is not of this silence; one that has gone waits no more."""
    worker = Worker()
    worker.beats()

    def replace_thread(passed_s):
        worker.vitals = Vitals("S", waited_s={thread + 1: 1e6 for thread in worker.vitals.waited_s})

    _, after_s = worker.look_until(60, replace_thread)
    assert after_s < 5.0 + 2.0


def test_the_floor_and_the_high_limit_are_what_is_documented():
    """A minute, ten minutes for a checkpoint, half an hour."""
    documented = (60.0, 600.0, 1800.0)
    assert documented == (liveness.FLOOR_S, liveness.SAVING_FLOOR_S, liveness.UNKNOWN_S)
