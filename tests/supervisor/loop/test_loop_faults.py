"""A supervisor that fails, or hears nonsense: the training goes on, or its memory is saved first."""

from __future__ import annotations

import json
import os
import selectors
import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from messages_said import saved
from played import OPENED, committed, fail, mirror_with
from test_loop_lives import PlayedWorkers, Theatre

from chaos.played_worker import PlayedWorker
from resilient.config import KeepPolicy, Origin, Sealing, WorkerConfig
from resilient.errors import LinkError
from resilient.run import rundir
from resilient.wire.messages import (
    CommitSlot,
    Hello,
    OpenStore,
    Remarked,
    ResumeRecorded,
    SaveDone,
    StoreOpened,
    TakeMirror,
    TakeOver,
)
from supervisor.checkpointing import save_requests
from supervisor.group import worker_processes
from supervisor.loop.internal_errors import MOST_IN_A_ROW, BrokenError
from supervisor.loop.machine import SupervisorState

KEPT_STEP = 7


class MortalWorker(PlayedWorker):
    """One that ends when it is asked to, and saves nothing by itself."""

    def signal(self, number):
        super().signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            self.die(-number)


class SavedWorkers(PlayedWorkers):
    """Workers with a saver that commits all it is asked for; ``committed`` are the steps."""

    def __init__(self):
        super().__init__()
        self.savers = []
        self.committed = []

    make_worker = MortalWorker

    def spawn_saver(self, config, log):
        saver = MortalWorker()
        self.savers.append(saver)
        threading.Thread(target=self.serve, args=(saver,), daemon=True).start()
        return saver

    def serve(self, saver):
        try:
            while True:
                message, descriptors = saver.other.receive()
                for descriptor in descriptors:
                    os.close(descriptor)
                if isinstance(message, TakeOver):
                    saver.say(OPENED)
                if isinstance(message, CommitSlot):
                    self.committed.append(message.slot.step)
                    saver.say(committed(message.slot.step))
        except (LinkError, OSError, ValueError):
            saver.die(0)


@contextmanager
def stage(folder):
    """A supervisor with a worker at work, which keeps step 7 in its mirror and has nothing on disk."""
    theatre = Theatre(Path(folder), SavedWorkers())
    try:
        theatre.settle()
        theatre.say(OpenStore(theatre.directory.root, KeepPolicy(), Sealing()))
        theatre.mirror, _ = mirror_with(KEPT_STEP)
        theatre.worker.say(TakeMirror(), [theatre.mirror.memory.descriptor])
        theatre.progress(1)
        while not (opened := theatre.worker.hear()):
            theatre.supervisor.step(1.0)
        assert opened[0] == StoreOpened("")
        theatre.settle()
        assert kept_step(theatre) == KEPT_STEP
        yield theatre
    finally:
        theatre.close()
        for saver in theatre.workers.savers:
            saver.die()


def kept_step(theatre):
    return theatre.supervisor._save_requests.kept_step


def events(theatre, name):
    lines = map(json.loads, theatre.directory.journal.read_text().splitlines())
    return [line for line in lines if line["event"] == name]


KINDS = [
    *["hello", "place", "progress", "resuming", "resumed", "fresh", "saved", "save_failed", "finished"],
    *["incident", "unusable", "nothing_older", "mismatch", "usage", "busy", "data_worker", "warning"],
    *["remark", "skipped", "store", "mirror", "mirror_off", "save", "standing_by", "what?", ""],
]
FIELDS = [
    *["step", "epoch", "status", "pid", "memory_bytes", "seconds", "complete", "loss_finite", "directory"],
    *["file", "reason", "message", "text", "error", "hint", "kind", "exception", "traceback", "phase"],
    *["how", "slot", "sequence", "keep", "sealing", "failure", "left_behind", "attempt", "event", "time"],
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\x00\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.builds(
    lambda kind, fields: {**fields, "type": kind},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=12))
@example([{"type": "place"}, {"type": "place", "directory": 3}])
@example([{"type": "save", "slot": {"number": 1, "sequence": 1, "step": 1}, "epoch": float("inf")}])
@example([{"type": "incident", "kind": [], "traceback": {}}, {"type": "finished", "complete": "no"}])
@example([{"type": "saved", "step": True}, {"type": "progress", "step": 10**30}, {"type": "saved"}])
def test_no_message_of_a_worker_costs_it_its_life_or_its_memory(messages):
    """Fields that are missing or of a wrong type, in any order: the worker lives, and its mirror is kept."""
    with tempfile.TemporaryDirectory() as folder, stage(folder) as theatre:
        worker = theatre.worker
        lets_go = any(message["type"] == "mirror_off" for message in messages)
        for message in messages:
            worker.other._socket.send(json.dumps(message).encode())
        theatre.settle()
        assert theatre.worker is worker
        assert not {signal.SIGTERM, signal.SIGKILL} & set(worker.signals)
        assert lets_go or kept_step(theatre) == KEPT_STEP
        # It can be asked for what it needs as if nothing had been, and it can end.
        worker.say(Remarked("still heard"))
        theatre.settle()
        assert events(theatre, "remark")[-1]["text"] == "still heard"
        worker.die(1)
        theatre.settle()
        assert events(theatre, "incident_judged")
        assert events(theatre, "broken") == []
        assert events(theatre, "mishap") == []


PARTS = {
    "_judge": ["note", "judge", "begin", "standing", "journal", "give_up"],
    "_save_requests": ["hear", "offer", "save_newer", "unsaved", "obstacle"],
    "_launcher": ["launch", "clear_away", "finish", "reap_orphans"],
    "_book": ["begin_attempt", "config", "note", "end"],
    "_next": ["launch"],
    "_patrol": ["begin", "_look"],
    "_last_save": ["on_settled", "_is_held_up"],
    "_conclusion": ["draw"],
    "_watchman": ["begin", "look", "note", "evidence", "obstacle"],
    "_listeners": ["hear", "news_in"],
    "_reactions": ["on_news", "heard"],
    "_postmortem": ["on_over", "on_spawn_failed", "hold"],
    "_pause": ["begin", "_try"],
    "_rescue": ["obstacle_to_end", "obstacle"],
    "directory": ["write"],
    "answering": ["answer"],
}


@pytest.mark.parametrize("fault", [KeyError("x"), MemoryError(), RecursionError("deep")], ids=repr)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize(
    ("part", "method"), [(part, method) for part, methods in PARTS.items() for method in methods]
)
def test_whatever_of_us_fails_what_is_in_memory_is_saved(tmp_path, monkeypatch, part, method, lasting, fault):
    """A fault in any part, once or for ever: the run goes on, or ends with 70, and step 7 is on disk."""
    with stage(tmp_path) as theatre:
        monkeypatch.setattr(save_requests, "answer", save_requests.answer)
        elsewhere = {"directory": theatre.directory, "answering": save_requests}
        failing = elsewhere.get(part) or getattr(theatre.supervisor, part)
        fail(failing, method, fault, lasting=lasting)
        try:
            live_on(theatre)
        except BrokenError as error:
            theatre.supervisor.break_down(error)
            assert theatre.supervisor.status == 70
            assert "traceback" in events(theatre, "broken")[0]
        assert KEPT_STEP in theatre.workers.committed
        assert theatre.worker is None
        assert events(theatre, "ended")[-1]["status"] in (70, 75, 126)


def live_on(theatre):
    """What happens in a life: a message, a look, a child's end, a death, a restart, and a stop."""
    theatre.supervisor.hear_signals([signal.SIGCHLD])
    theatre.progress(2)
    theatre.pass_s(6)
    if theatre.worker is not None:
        theatre.worker.die(-signal.SIGSEGV)
    await_commit(theatre)
    theatre.pass_s(40)
    theatre.supervisor.hear_signals([signal.SIGTERM])
    for _ in range(100):
        theatre.pass_s(1)
        if theatre.supervisor.ended:
            return
    raise AssertionError("it goes on for ever")


def await_commit(theatre):
    """The played saver answers from a thread of its own."""
    for _ in range(50):
        theatre.supervisor.step(0.0)
        if theatre.supervisor.ended or not theatre.supervisor._save_requests.busy:
            return
        theatre.supervisor.step(0.1)


def test_one_that_hears_a_message_and_fails_does_not_take_the_others(tmp_path):
    """The judge fails over messages: the journal has them, and once the fault with its traceback."""
    with stage(tmp_path) as theatre:
        fail(theatre.supervisor._judge, "note", KeyError("step"), lasting=True)
        for number in range(5):
            theatre.say(Remarked(str(number)))
        theatre.settle()
        assert [event["text"] for event in events(theatre, "remark")] == list("01234")
        (mishap,) = events(theatre, "mishap")
        assert "KeyError: 'step'" in mishap["traceback"]


def test_a_timer_that_fails_is_set_again_and_given_up_in_the_end(tmp_path):
    """The restart is tried again a little later; when that is of no use, the memory is saved."""
    with stage(tmp_path) as theatre:
        theatre.worker.die(-signal.SIGKILL)
        await_commit(theatre)
        assert theatre.supervisor._helm.state is SupervisorState.WAITING
        fail(theatre.supervisor._watchman, "obstacle", ValueError("bad"), lasting=True)
        with pytest.raises(BrokenError):
            theatre.pass_s(60)
        assert events(theatre, "mishap")[0]["what"] == "the timer machine"
        theatre.supervisor.break_down(BrokenError())
        assert theatre.directory.open().status == rundir.FAILED


def test_a_source_that_fails_again_and_again_does_not_keep_the_loop_busy(tmp_path):
    """It stays readable: after a few times the supervisor is broken, instead of burning a core for ever."""
    with stage(tmp_path) as theatre:
        fail(theatre.supervisor._launcher, "_on_end", OSError("bad"), lasting=True)
        theatre.worker.die(1)
        theatre.supervisor._selector.modify(
            theatre.workers.all[0].end_fd, 1, lambda: theatre.supervisor._launcher._on_end()
        )
        for _ in range(MOST_IN_A_ROW - 1):
            theatre.supervisor.step(0)
        with pytest.raises(BrokenError):
            theatre.supervisor.step(0)


def test_a_worker_that_saves_by_itself_is_believed(tmp_path):
    """Asked to end, it says that it has saved a newer step: the older one in memory is not saved again."""
    with stage(tmp_path) as theatre:
        worker = theatre.worker
        worker.signal = lambda number: (
            worker.say(saved(9)),
            worker.die(143),
        )
        theatre.supervisor.break_down(BrokenError())
        assert theatre.workers.committed == []
        assert events(theatre, "ended")[-1]["step"] == 9


def test_what_could_not_be_saved_in_the_end_is_named(tmp_path):
    """No saver can be started any more: the last event names the step that is lost."""
    with stage(tmp_path) as theatre:

        def refuse(config, log):
            raise OSError("no more processes")

        theatre.supervisor._emergency_save._spawn_saver = lambda config: refuse(config, None)
        theatre.supervisor.break_down(BrokenError())
        assert "step 7 was left in memory, and could NOT be saved" in events(theatre, "ended")[-1]["lost"]


def test_a_packet_that_is_no_message_does_not_end_the_link(tmp_path):
    """It is reported; the worker's next request is answered as if nothing had been."""
    with stage(tmp_path) as theatre:
        for packet in (b"garbage", b"{}", b"\0part"):
            theatre.worker.other._socket.send(packet)
        theatre.resume(5)
        theatre.settle()
        assert theatre.worker.hear() == (ResumeRecorded(), [])
        assert len(events(theatre, "warning")) == 3
        assert all("was left out" in event["text"] for event in events(theatre, "warning"))


def test_a_message_that_this_version_does_not_know_is_reported_once_and_does_no_harm(tmp_path):
    """Its word is named, and no more of it; what an order of ours says is no news of a worker's either."""
    with stage(tmp_path) as theatre:
        for _ in range(2):
            theatre.worker.other._socket.send(b'{"type": "later", "secret": "s3cret"}')
            theatre.say(SaveDone(""))
        theatre.say(Remarked("still heard"))
        theatre.settle()
        assert events(theatre, "remark")[-1]["text"] == "still heard"
        told = [event["text"] for event in events(theatre, "warning")]
        assert [word in text for word, text in zip(["'later'", "done"], told, strict=True)] == [True, True]
        assert "s3cret" not in theatre.directory.journal.read_text()


def test_a_worker_of_another_version_ends_the_run_with_a_clear_word(tmp_path):
    """Another attempt would be of that version, too: none follows, and what to do is said."""
    with stage(tmp_path) as theatre:
        theatre.worker.other._socket.send(b'{"type": "hello", "pid": 1, "protocol": 0}')
        theatre.settle()
        theatre.worker.die(1)
        theatre.settle()
        (judged,) = events(theatre, "incident_judged")
        assert (judged["kind"], judged["status"], judged.get("restart_in_s")) == ("usage", 64, None)
        assert "another version" in judged["cause"]
        assert "run the same command again" in judged["hint"]


@pytest.mark.parametrize("why", ["it reads nothing", "too large"])
def test_a_worker_that_cannot_be_told_what_to_do_is_none(monkeypatch, why):
    """It would wait for ever for its configuration: it is ended, and that is a start that has failed."""
    monkeypatch.setattr(worker_processes, "_CONFIG_S", 0.0)
    rules = 100_000 if why == "it reads nothing" else 2_000_000
    origin = Origin(skipped=tuple(range(10**9, 10**9 + rules)))
    worker = MortalWorker()
    with pytest.raises(OSError, match="does not take its configuration"):
        worker_processes.tell(worker, WorkerConfig("run-1", Path("/run"), 0, origin=origin), [])
    assert worker.signals == [signal.SIGKILL]
    assert worker.finished


def test_what_was_ready_under_a_number_is_not_what_has_it_now(tmp_path):
    """Two are ready at once; the first one's handler closes the second, and its number is another's now."""
    with stage(tmp_path) as theatre:
        selector, called = theatre.supervisor._selector, []
        pipes = [os.pipe() for _ in range(2)]
        for _, writing in pipes:
            os.write(writing, b"!")

        def handle(mine, other):
            called.append(mine)
            selector.unregister(mine)
            if other not in called:
                selector.unregister(other)
                os.dup2(fresh, other)
                selector.register(other, selectors.EVENT_READ, lambda: called.append("somebody else's"))

        fresh, keep = os.pipe()
        a, b = (reading for reading, _ in pipes)
        selector.register(a, selectors.EVENT_READ, lambda: handle(a, b))
        selector.register(b, selectors.EVENT_READ, lambda: handle(b, a))
        theatre.supervisor.step(0)
        assert called in ([a], [b])
        for descriptor in {a, b, fresh, keep, *(writing for _, writing in pipes)}:
            os.close(descriptor)


@pytest.mark.parametrize("state", ["S", "T"])
def test_a_hang_before_the_first_word_is_seen(tmp_path, state):
    """The interpreter hangs in an import, or was stopped: it is woken, asked to end, and started again."""
    theatre = Theatre(tmp_path)
    try:
        theatre.settle()
        while Hello in theatre.supervisor._launcher.present.told:
            # Every third one of the played ones never says a word.
            theatre.worker.die(-signal.SIGKILL)
            theatre.pass_s(10)
        silent = theatre.worker
        silent.state = state
        theatre.pass_s(660)
        assert {signal.SIGCONT, signal.SIGTERM} <= set(silent.signals)
        assert signal.SIGQUIT not in silent.signals
        assert "hang" in [line["event"] for line in map(json.loads, journal_of(theatre))]
    finally:
        theatre.close()


def journal_of(theatre):
    return theatre.directory.journal.read_text().splitlines()


@pytest.mark.parametrize("trials", ['{"format": 1, "trial": {"step": 1e999}}', "[]", '{"format": [', "null"])
def test_a_record_of_trials_that_makes_no_sense_keeps_no_run_from_starting(tmp_path, trials):
    """It is only advice: an attempt is launched all the same."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials.json").write_text(trials)
    theatre = Theatre(tmp_path)
    assert theatre.worker is not None
    theatre.close()


def test_a_farewell_whose_parts_fail_as_well_ends_the_worker_all_the_same(tmp_path):
    """Nothing is known of the memory any more: the worker is asked to save by itself, and the end is said."""
    with stage(tmp_path) as theatre:
        worker = theatre.worker
        fail(theatre.supervisor._save_requests, "leave", KeyError("x"), lasting=True)
        theatre.supervisor.break_down(BrokenError())
        assert signal.SIGTERM in worker.signals
        assert events(theatre, "ended")[-1]["status"] == 70


def test_a_worker_that_does_not_end_is_killed_and_its_memory_saved(tmp_path):
    """It ignores what it is asked: when its grace is over, what it kept is committed for it."""
    with stage(tmp_path) as theatre:
        worker = theatre.worker
        die = worker.die
        worker.signal = lambda number: (
            worker.signals.append(number),
            die() if number == signal.SIGKILL else None,
        )
        theatre.supervisor._emergency_save._grace_s = 0.1
        theatre.supervisor.break_down(BrokenError())
        assert worker.signals == [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL]
        assert theatre.workers.committed == [KEPT_STEP]
