"""One training call without a framework: the real recorder, keepers, mirror and signal handlers are driven.

A signal can come at any line of the recorder, of the keepers and of the script, and much can fail. The world
knows which values are whole, and of which step: it compares with them what is saved, held or left in memory.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
from pathlib import Path
from types import SimpleNamespace

from hypothesis import strategies as st
from recorder_parts import NUMBERS, PlayedComposer, RecorderPlan, Remote, Strikes, StruckError, Tensors

from resilient.config import Best, KeepPolicy, SavePolicy
from resilient.host.shared_memory import SharedMemory
from resilient.saving import slots
from resilient.saving.in_process import InlineSaver, Saved
from resilient.saving.remote import MirrorMeans
from resilient.state.snapshot import Progress
from resilient.wire.heartbeat import Heartbeat
from resilient.wire.mirror import Mirror, MirrorLayout, place
from resilient.worker.boundary.keeper import ShadowKeeper
from resilient.worker.boundary.mirror_keeper import MirrorKeeper
from resilient.worker.boundary.recorder import Recorder
from resilient.worker.process.signals import SignalGuard

STEPS_PER_EPOCH = 3
EPOCHS = 3


PLANS = st.builds(
    RecorderPlan,
    kind=st.sampled_from(["model", "loop"]),
    mirrored=st.booleans(),
    every=st.sampled_from([1, 2, 5]),
    waits=st.booleans(),
    save_steps=st.sampled_from([1, 2, 50]),
    best=st.booleans(),
    resumed=st.booleans(),
    resumes_hooks=st.booleans(),
    signals=st.lists(st.tuples(st.integers(1, 1200), st.sampled_from(NUMBERS)), max_size=4).map(tuple),
    failures=st.lists(st.integers(2, 150), max_size=3).map(tuple),
    full_disk=st.lists(st.integers(1, 6), max_size=2).map(tuple),
    requests=st.lists(st.integers(1, 900), max_size=2).map(tuple),
    cut_at=st.sampled_from([0, 0, 4, 6]),
    swallows=st.booleans(),
)


class RecorderWorld:
    """One training call and all that is saved of it. ``truth`` are the values of each boundary there was."""

    def __init__(self, plan: RecorderPlan) -> None:
        self.plan = plan
        self.strikes = Strikes(plan)
        self.tensors = Tensors(self.strikes)
        self.truth: dict[tuple[int, bool, bool], tuple[int, ...]] = {}
        self.saved: list[tuple[Progress, str, bool, bool]] = []
        self.asked_commits = 0
        self.trusted_step = -1
        self.mirror: Mirror | None = None
        start = Progress(0, 2 if plan.resumed else 0, STEPS_PER_EPOCH)
        self.tensors.now = [start.step, start.step, 0]
        self.tell_boundary(start)
        best = Best(1, "accuracy", "max") if plan.best else None
        settings = SimpleNamespace(
            keep=KeepPolicy(best=best), save=SavePolicy(every_steps=plan.save_steps, every_s=None)
        )
        self.composer = PlayedComposer(self)
        self.keeper = self._mirror_keeper() if plan.mirrored else self._shadow_keeper()
        clock = SimpleNamespace(monotonic=lambda: 0.0)
        self.recorder = Recorder(
            SimpleNamespace(progress=start),
            settings,
            self.composer,
            self.keeper,
            clock,
            Heartbeat(),
            resumed=plan.resumed,
            resumes_hooks=plan.resumes_hooks,
        )
        self.strikes.request = self.recorder.request_save
        self.guard = SignalGuard(lambda: self.recorder.ready, self._on_signal)
        self.recorder.on_idle = self.guard.at_boundary

    def _on_signal(self, number) -> None:
        """As ``Watch`` does it: reports our own failures, and keeps them from the training."""
        with contextlib.suppress(StruckError):
            self.recorder.secure(signal.Signals(number).name)

    def _shadow_keeper(self):
        def commit(snapshot):
            self.strikes.place()
            done = self.untraced_note(snapshot.progress, snapshot.values, snapshot.reason, snapshot.failure)
            return Saved(snapshot, 0.0, Path("saved") if done else None)

        return ShadowKeeper(self.composer, InlineSaver(commit, lambda saved: None), guards=True)

    def _mirror_keeper(self):
        areas = place([(f"part {n}", "Int64", (), 0, 8) for n in range(3)])

        def make(meta_bytes, blob_bytes):
            if self.mirror is None:
                layout = MirrorLayout("run", 0, "CKP", areas, {})
                self.mirror = Mirror.make(layout, 2 if self.plan.waits else 3, SharedMemory.create, 4096)
            return self.mirror

        means = MirrorMeans(
            make=make,
            remote=Remote(self),
            alone=lambda: None,
            failed=lambda step, why: None,
            clock=SimpleNamespace(monotonic=lambda: 0.0),
        )
        return MirrorKeeper(self.composer, means, self.plan.every, waits=self.plan.waits)

    # The truth

    def tell_boundary(self, progress: Progress) -> None:
        """The live values are this boundary."""
        self.truth[label(progress)] = tuple(self.tensors.now)

    def untraced_note(self, progress, values, reason, failure) -> bool:
        """A checkpoint is made: it must hold what its label says."""
        assert self.truth.get(label(progress)) == values, f"{label(progress)} ({reason}) holds {values}"
        self.asked_commits += 1
        done = self.asked_commits not in self.plan.full_disk
        self.saved.append((progress, reason, failure, done))
        return done

    def untraced_commit(self, asked) -> bool:
        return self.untraced_note(
            *self.untraced_content(asked.mirror, asked.slot), asked.reason, asked.failure
        )

    def untraced_content(self, mirror, slot):
        assert mirror.is_still(slot), "a slot was written while it was being committed"
        header = slots.Header.decode(mirror.meta(slot))
        views = [bytes(mirror.view(slot.number, area)) for area in mirror.layout.areas]
        values = tuple(struct.unpack("<q", view)[0] for view in views)
        return Progress(**json.loads(header.extra)), values

    def check_memory(self) -> None:
        """Every complete slot may be committed by the supervisor at any time: it holds what it says."""
        slot = self.mirror.newest() if self.mirror is not None else None
        if slot is not None:
            progress, values = self.untraced_content(self.mirror, slot)
            assert self.truth.get(label(progress)) == values, f"in memory {label(progress)} is {values}"

    # The script

    def run(self) -> None:
        """The call, and what the script does after it; its own exceptions end it, as they would a script."""
        handlers = {number: signal.getsignal(number) for number in NUMBERS}
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.guard.install()
            self._live()
        finally:
            self.guard.restore()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if self.mirror is not None:
                self.check_memory()
                self.mirror.memory.close()

    def _live(self) -> None:
        try:
            with self.strikes.on():
                self.loop() if self.plan.kind == "loop" else self.model()
        except (StruckError, SystemExit, KeyboardInterrupt):
            self._demand_newest()
            struck = self.strikes.struck
            with contextlib.suppress(StruckError, SystemExit, KeyboardInterrupt), self.strikes.on():
                self.handle()
            # A signal that comes while the script handles its exception does not wait for a boundary.
            assert self.recorder.ready or self.strikes.struck > struck

    def model(self) -> None:
        """As MindSpore's loop runs it: with hooks around steps, epochs and the call."""
        recorder, plan = self.recorder, self.plan
        recorder.begin()
        step, stopped = recorder.progress.call_step, False
        while step < EPOCHS * STEPS_PER_EPOCH and not stopped:
            self.trusted_step = -1
            recorder.epoch_opens()
            self.hooks()
            recorder.epoch_is_open()
            while True:
                step += 1
                self.trusted_step = -1
                recorder.step_begins()
                self.hooks()
                self.update()
                self.callbacks(step)
                stopped = step == plan.cut_at
                recorder.boundary(step, cut=stopped)
                if step % STEPS_PER_EPOCH == 0 or stopped:
                    break
            self.trusted_step = -1
            self.hooks()
            if recorder.progress.at_epoch_end:
                closed = recorder.progress.at(step, epoch_closed=True)
                self.tell_boundary(closed)
                recorder.boundary(step, epoch_closed=True)
                self.trusted_step = step
                recorder.evaluated({"accuracy": float(step)})
        recorder.call_ends()
        self.trusted_step = -1
        self.hooks()
        if stopped and not plan.swallows:
            recorder.fail("stop")
            return
        self.finish()

    def loop(self) -> None:
        """A loop of the user's own; it may be left in the middle of a round, by break."""
        recorder, plan = self.recorder, self.plan
        recorder.begin()
        for step in range(recorder.progress.call_step + 1, EPOCHS * STEPS_PER_EPOCH + 1):
            self.trusted_step = -1
            recorder.step_begins()
            self.update()
            self.strikes.place()
            if step == plan.cut_at:
                break
            self.tell_boundary(recorder.progress.at(step, epoch_closed=False))
            recorder.update_done(step, 0.5)
            self.trusted_step = -1 if plan.resumes_hooks else step
            recorder.boundary(step, judged=True)
            recorder.evaluated({"accuracy": 1.0 / step})
        self.finish()

    def finish(self) -> None:
        end = self.recorder.progress
        self.truth[end.step, True, True] = tuple(self.tensors.now)
        self.recorder.call_finished()
        self.recorder.evaluated({"accuracy": 2.0})
        self.trusted_step = -1
        self.hooks()
        self.recorder.evaluated({"accuracy": 3.0})
        self.strikes.place()

    def callbacks(self, step: int) -> None:
        """A step's end hooks. Where a later attempt has callbacks too, a step is whole once all of them have
        run, else before that."""
        recorder = self.recorder
        if self.plan.resumes_hooks:
            recorder.update_done(step, 0.5)
            self.hooks()
            self.tell_boundary(recorder.progress.at(step, epoch_closed=False))
        else:
            self.tell_boundary(recorder.progress.at(step, epoch_closed=False))
            recorder.update_done(step, 0.5)
            self.trusted_step = step
            self.strikes.place()

    def update(self) -> None:
        """One step of the optimizer; in its middle it is half-done."""
        self.tensors.now[0] += 1
        self.strikes.place()
        self.tensors.now[1] += 1

    def hooks(self) -> None:
        """The script's own code, which changes what it likes."""
        self.strikes.place()
        self.tensors.now[2] += 1
        self.strikes.place()

    def handle(self) -> None:
        """An exception has left the call: the script handles it, and may do anything at all."""
        self.tensors.now[2] -= 100
        signal.raise_signal(signal.SIGUSR1)
        self.recorder.evaluated({"accuracy": 9.0})
        self.recorder.request_save()
        self.tensors.now[0] += 50
        self.recorder.fail("exception")
        self.recorder.step_begins()
        self.recorder.update_done(99, 0.1)
        self.recorder.boundary(99)
        self.recorder.secure("SIGHUP")
        self.recorder.call_ends()
        self.recorder.call_finished()
        signal.raise_signal(signal.SIGUSR1)

    # What must have been saved

    def _demand_newest(self) -> None:
        """Tells the recorder of the exception, as ``Watch`` does; the newest whole step is saved."""
        held, struck, before = self.keeper.held, self.strikes.struck, len(self.saved)
        expected = max(held.progress.step if held is not None else 0, self.trusted_step)
        safe = max([p.step for p, _, failure, done in self.saved if failure and done], default=0)
        known = max(safe, 2 if self.plan.resumed else 0, self._end_is_safe())
        try:
            with self.strikes.on():
                self.recorder.fail("exception")
        except (StruckError, SystemExit, KeyboardInterrupt):
            return
        tried = [p.step for p, _, failure, _ in self.saved[before:] if failure]
        if self.strikes.struck == struck and expected > known:
            assert tried, f"step {expected} was whole, and is not saved"
            assert max(tried) >= expected, f"step {expected} was whole, step {max(tried)} is saved"
        if self.strikes.struck == struck and not self._may_leave_at_any_line():
            assert len(tried) <= 1, "saved twice"

    def _end_is_safe(self) -> int:
        """Where the call is over, a checkpoint of its last step is enough: the rest is made again."""
        over = any(finished for _, _, finished in self.truth)
        return max([p.step for p, _, _, done in self.saved if over and done], default=0)

    def _may_leave_at_any_line(self) -> bool:
        """Whether a signal raises an exception where it comes, perhaps between an act and its note."""
        return any(number != signal.SIGUSR1 for _, number in self.plan.signals)

    def check_frugal(self) -> None:
        """Nothing that is safe is saved once more; unless an exception comes before it could be noted."""
        if self._may_leave_at_any_line():
            return
        failures = [p.step for p, _, failure, done in self.saved if failure and done]
        assert failures == sorted(set(failures)), failures
        regular = [
            label(p) for p, why, failure, done in self.saved if not failure and done and why != "evaluation"
        ]
        assert regular == sorted(set(regular)), regular


def _leave(number, frame):
    raise SystemExit(143)


def label(progress: Progress) -> tuple[int, bool, bool]:
    """A boundary as the truth knows it."""
    return progress.step, progress.epoch_closed, progress.call_finished


def live(plan: RecorderPlan) -> RecorderWorld:
    """One training, with all that must hold of it."""
    world = RecorderWorld(plan)
    world.run()
    world.check_frugal()
    return world
