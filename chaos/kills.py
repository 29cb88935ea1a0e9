"""python -m chaos.kills [--kills N] [--seed S] [--jobs J]: kills real trainings at random instants.

Each run is a short, real MindSpore training (by ``Model`` or in a loop of its own) under ``resilient-run
--mirror-every 1``, killed some ten times: in a step, in a callback, in a copy, while it compiles, while it
imports, right after it was started. The victim is the worker (SIGKILL, SIGSEGV, SIGABRT, os._exit), the
saver, the supervisor, several of them, or everything. In the end the weights, the optimizer state and the
random streams must be those of a run that nobody killed; no completed step may have run again, except one
whose copy was in progress, and, where everything died, those since the last durable checkpoint; and no
process may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from chaos.victims import Victim, VictimError, VictimSetup
from chaos.witness import DONE, Death, RepeatedSteps, judge
from resilient.host.entropy import SystemEntropy
from resilient.journal.events import StateShunned, StepSaved

STEPS = 400
KILLS_PER_RUN = 10
_SEED = 20_26
_SUB_STEP_S = 0.006  # a step of the program takes 1.5 to 5 ms
_START_S = 8.0  # as long as an import and a compilation take here, at most
_OVERTIME_RUNS = 3

_ALWAYS = ("--mirror-every", "1", "--backoff", "0:0", "--max-restarts", "1000")

WORKER, SAVER, SUPERVISOR = "worker", "saver", "supervisor"

# Who is killed, and how often compared with the others.
TARGETS = {
    "worker": 20,
    "worker SIGSEGV": 4,
    "worker SIGABRT": 3,
    "worker exit 7": 3,
    "worker exit 0": 2,
    "saver": 4,
    "worker+saver": 5,
    "supervisor": 3,
    "supervisor+saver": 3,
    "supervisor+worker+saver": 4,
}


@dataclass(frozen=True)
class PlannedKill:
    """One killing that is planned: once ``step`` is complete and ``delay_s`` later, or, with ``start`` (a
    share of the time that a start takes), while the next process starts."""

    target: str
    step: int
    delay_s: float
    start: float | None = None


@dataclass
class KillReport:
    """What became of one run."""

    shape: VictimSetup
    struck: list[str] = field(default_factory=list)
    account: RepeatedSteps = field(default_factory=lambda: RepeatedSteps(0, 0, ()))
    errors: list[str] = field(default_factory=list)


def shape_of(number: int) -> VictimSetup:
    """Runs differ in all that a user can choose: how they train, when they save, the cipher, the number of
    slots, an interpreter in reserve. Each choice meets each other one in some run of a campaign.
    """
    way, augment = (("train", False), ("loop", False), ("fit", False), ("train", True), ("loop", True))[
        number % 5
    ]
    # A loop has no callbacks, so no monitor either.
    monitor = "none" if way == "loop" else ("none", "async", "sync")[number % 3]
    mode = "pynative" if number % 4 == 3 else "graph"
    slots = ((), ("--mirror-slots", "2"), ("--mirror-slots", "3"))[number // 3 % 3]
    saves = () if monitor != "none" else ("--save-steps", "3") if number % 2 == 0 else ("--save-steps", "60")
    standby = ("--standby",) if number % 7 == 5 else ()
    cipher = (None, "AES-GCM", "AES-CBC", "SM4-CBC")[number // 2 % 4]
    arguments = ("--mode", mode, "--way", way, *(["--augment"] if augment else []), "--monitor", monitor)
    options = (*_ALWAYS, *slots, *saves, *standby)
    return VictimSetup(_SEED, STEPS, arguments, options, cipher=cipher)


def plan(rng: random.Random, count: int) -> list[PlannedKill]:
    """Killings at growing steps. One in five comes while a process starts, never two of those in a row: a run
    that fails the same way twice before its first step is given up, and rightly. Nor is such a one a crash
    where the one before it was the same, or took the supervisor along, which may not have heard of the first
    step yet: then an older state is gone back to, rightly too.
    """
    steps = sorted(rng.sample(range(1, STEPS), count))
    targets = rng.choices(list(TARGETS), list(TARGETS.values()), k=count)
    kills: list[PlannedKill] = []
    for step, target in zip(steps, targets, strict=True):
        early = rng.random() < 0.25 and not (kills and kills[-1].start is not None) and bool(kills)
        start = rng.random() if early and target != SAVER else None
        if (
            start is not None
            and " " in target
            and (target == kills[-1].target or SUPERVISOR in kills[-1].target)
        ):
            target = WORKER
        kills.append(PlannedKill(target, step, rng.uniform(0.0, _SUB_STEP_S), start))
    return kills


class Execution:
    """Carries out the killings of one run."""

    def __init__(self, victim: Victim, report: KillReport) -> None:
        self._victim = victim
        self._report = report
        self._deaths: list[Death] = []

    def run(self, kills: Sequence[PlannedKill]) -> None:
        """From the start to the end of the run, and the judgment. Raises VictimError."""
        self._victim.start()
        for kill in kills:
            if not self._wait_for(kill):
                break
            self._strike(kill)
        self._victim.wait_until_gone()
        states_set_aside = len(self._victim.events(StateShunned))
        self._report.account = judge(self._victim.lines(), self._deaths, STEPS, states_set_aside)
        self._report.errors += self._report.account.errors
        if self._victim.status() != 0:
            self._report.errors.append(f"the run ended with status {self._victim.status()}")
        elif self._victim.durable_step() != STEPS:
            self._report.errors.append(f"the newest checkpoint is of step {self._victim.durable_step()}")

    def _wait_for(self, kill: PlannedKill) -> bool:
        """Waits for the instant; False when the run is over before it."""
        victim = self._victim
        if kill.start is not None:
            victim.wait_for(lambda: victim.over or victim.worker() != 0, "the start of a worker")
            due_s = time.monotonic() + kill.start * _START_S
            # Where a start is quicker than thought, it ends with the first step.
            victim.wait_for(lambda: victim.over or self._trains() or time.monotonic() > due_s, "a step")
        else:
            victim.wait_for(lambda: victim.over or self._has_completed(kill.step), f"step {kill.step}")
            time.sleep(kill.delay_s)
        return not victim.over

    def _trains(self) -> bool:
        """Whether the present worker has begun a step."""
        last = self._victim.last_lines()[-1:]
        return bool(last) and last[0].pid == self._victim.worker()

    def _has_completed(self, step: int) -> bool:
        """Whether this step is complete, and the present worker has completed any: one that had not would
        have failed before its first step, and a run that does so twice is given up."""
        done = [line for line in self._victim.last_lines() if line.what == DONE]
        return bool(done) and done[-1].step >= step and done[-1].pid == self._victim.worker()

    def _strike(self, kill: PlannedKill) -> None:
        victim = self._victim
        worker, trains = victim.worker(), self._trains()
        with contextlib.suppress(OSError):
            # Who has ended by itself meanwhile was not killed.
            struck = self._kill(kill.target, worker)
            self._report.struck.append(kill.target + ("" if trains else ", starting"))
            if SUPERVISOR in struck:
                self._go_on(struck, trains=trains)
            elif struck != [SAVER]:
                victim.wait_for(lambda: victim.worker() != worker or victim.over, "the death of the worker")
                self._deaths.append(Death(len(victim.lines())))

    def _kill(self, target: str, worker: int) -> list[str]:
        """Kills who is to be killed, and tells who was."""
        name, _, way = target.partition(" ")
        if way.startswith("exit"):
            self._victim.exit(int(way.split()[1]))
            return [WORKER]
        pids = {
            WORKER: worker,
            SAVER: self._victim.saver(),
            SUPERVISOR: self._victim.supervisor(),
        }
        there = [who for who in name.split("+") if pids[who]]
        if not there:
            raise ProcessLookupError(f"there is no {name}")
        self._victim.kill([pids[who] for who in there], getattr(signal, way or "SIGKILL"))
        return there

    def _go_on(self, struck: list[str], *, trains: bool) -> None:
        """The supervisor is dead: once everything else is over as well, the same command is started again."""
        victim = self._victim
        victim.wait_until_gone()
        durable_step = victim.durable_step()
        told = max((event.step or 0 for event in victim.events(StepSaved)), default=0)
        if durable_step < told:
            self._report.errors.append(f"step {told} was told to be saved, and step {durable_step} is")
        # A worker that trains when its supervisor dies saves its last step itself. One that starts has
        # nothing yet, and what it was to go on from died with the supervisor.
        alone = WORKER not in struck and trains
        self._deaths.append(Death(len(victim.lines()), None if alone else durable_step, copies=False))
        victim.start()


def execute(
    folder: Path, shape: VictimSetup, kills: Sequence[PlannedKill], expected: Callable[[VictimSetup], str]
) -> KillReport:
    """One run with its killings, held against the one that nobody killed."""
    report = KillReport(shape)
    victim = Victim(folder, shape)
    try:
        Execution(victim, report).run(kills)
        if not report.errors and victim.result() != expected(shape):
            report.errors.append("the weights, the optimizer state or the random streams differ")
    except (VictimError, OSError) as error:
        report.errors.append(str(error))
    finally:
        victim.clear_away()
    return report


def undisturbed(folder: Path, shape: VictimSetup) -> str:
    """The result of the same training in a run that nobody kills."""
    victim = Victim(folder, VictimSetup(_SEED, STEPS, shape.training))
    victim.start()
    victim.wait_until_gone()
    account = judge(victim.lines(), [], STEPS)
    if victim.status() != 0 or account.errors:
        raise VictimError(f"the run that nobody kills fails by itself; see {folder}")
    return victim.result()


class Campaign:
    """So many killings in so many runs, some at once."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._expected: dict[tuple[str, ...], str] = {}
        self._lock = threading.Lock()
        self.reports: list[KillReport] = []

    @property
    def struck(self) -> int:
        return sum(len(report.struck) for report in self.reports)

    @property
    def failed(self) -> list[KillReport]:
        return [report for report in self.reports if report.errors]

    def carry_out(self, kills: int, jobs: int, say: Callable[[str], None]) -> None:
        """Runs until so many killings have been done, or something was lost."""
        with ThreadPoolExecutor(jobs) as pool:
            numbers = iter(range(-(-kills // KILLS_PER_RUN) * _OVERTIME_RUNS))
            while self.struck < kills and not self.failed:
                missing = -(-(kills - self.struck) // KILLS_PER_RUN)
                batch = list(itertools.islice(numbers, missing))
                if not batch:
                    break
                for report in pool.map(self._one, batch):
                    self.reports.append(report)
                    say(_words(report))

    def _one(self, number: int) -> KillReport:
        rng = random.Random(f"{self._seed}-{number}")
        folder = self._folder / f"run-{number}"
        report = execute(folder, shape_of(number), plan(rng, KILLS_PER_RUN), self._undisturbed)
        if not report.errors:
            shutil.rmtree(folder)
        return report

    def _undisturbed(self, shape: VictimSetup) -> str:
        training = shape.training
        with self._lock:
            if training not in self._expected:
                folder = self._folder / "undisturbed{}".format("".join(training).replace("--", "-"))
                self._expected[training] = undisturbed(folder, shape)
            return self._expected[training]


def _words(report: KillReport) -> str:
    account, shape = report.account, report.shape
    result = "identical" if not report.errors else "FAILED: " + "; ".join(report.errors)
    how = " ".join((*shape.arguments, *shape.options[len(_ALWAYS) :], shape.cipher or "plain"))
    return (
        f"{len(report.struck):2} kills ({how}): {result}; run again: {account.in_copy} in copy, "
        f"{account.since_durable} since the last checkpoint"
    )


def summary(reports: Sequence[KillReport]) -> Iterator[str]:
    """The figures of a campaign as plain lines."""
    struck = Counter(target for report in reports for target in report.struck)
    yield f"{struck.total()} kills in {len(reports)} runs:"
    yield from (f"  {count:4} {target}" for target, count in sorted(struck.items()))
    in_copy = sum(report.account.in_copy for report in reports)
    since = sum(report.account.since_durable for report in reports)
    yield f"steps run again because their copy was in progress: {in_copy}"
    yield f"steps run again because memory died too, all after the last durable checkpoint: {since}"
    set_aside = sum(report.account.set_aside for report in reports)
    yield f"steps run again because a state was set aside, on which two supervisors had died: {set_aside}"


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="chaos.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, help="default: a new one; it is printed")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once (2)")
    options = parser.parse_args(argv)
    seed = options.seed if options.seed is not None else int.from_bytes(SystemEntropy().token(3), "little")
    folder = Path(tempfile.mkdtemp(prefix="resilient-kills-"))
    campaign = Campaign(folder, seed)
    _say(f"seed {seed}")
    began_s = time.monotonic()
    campaign.carry_out(options.kills, options.jobs, _say)
    for line in summary(campaign.reports):
        _say(line)
    _say(f"{time.monotonic() - began_s:.0f} s")
    if campaign.failed or campaign.struck < options.kills:
        _say(f"FAILED; what failed is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    _say("nothing was lost")
    return 0


def _say(text: str) -> None:
    print(f"kills: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
