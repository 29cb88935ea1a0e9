"""python -m chaos.proof [--deep]: every crash state of a store's daily life, held against the invariants.

For each cycle of saves and retention: every moment at which the process or the machine may die, everything
that may be left then, the recovery from it, every moment of *that* at which it may die again, and one more
save. Then each durable file is damaged in what a crash has left; and every operation of the cycle fails, once
and from then on, with (deep) a crash at every moment after that. Equal states are counted once.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from chaos.crashes import ends, moments
from chaos.cycle import Cycle, CycleProcess, cycles
from chaos.damage import damages
from chaos.disk_state import DiskState
from chaos.faults import DiskOperation, Fail, nothing
from chaos.invariants import Inspector, Knowledge, ViolationError
from chaos.simulated_disk import SimulatedDisk
from resilient.codec import cipher

_BLOCK_BYTES = 128
_FIRST, _SECOND, _THIRD = 1, 100, 200
_TOLD_EVERY = 250_000


def prove(cycle: Cycle, inspector: Inspector, depth: int = 2, *, damaged: bool = False) -> None:
    """Holds every crash state of a cycle against the invariants; raises ViolationError.

    ``depth`` 1 is a crash during the cycle; with 2, recoveries crash as well. With ``damaged``, one file of
    what the crash has left is spoilt too.
    """
    life = CycleProcess(cycle, SimulatedDisk(), _FIRST)

    def witness(state: DiskState) -> None:
        known = Knowledge(cycle, life.acknowledged, life.spoilt, _SECOND)
        if not inspector.is_new(state, known):
            return
        for end in ends(state, split=cycle.split):
            finding = inspector.inspect(end, known)
            if finding is None:
                continue
            if depth > 1 and finding.recovered:
                _prove_recovery(end, known, inspector)
            if damaged:
                _prove_damage(end, replace(known, acknowledged=finding.valid), inspector)

    moments(life.disk, life.go, witness)


def _prove_recovery(state: DiskState, known: Knowledge, inspector: Inspector) -> None:
    """Every crash during the recovery from a crash."""
    disk = SimulatedDisk(state)
    store = known.cycle.store(disk, known.seed)
    later = Knowledge(known.cycle, known.acknowledged, known.spoilt, _THIRD)

    def witness(state: DiskState) -> None:
        if inspector.is_new(state, later):
            for end in ends(state, split=later.cycle.split):
                inspector.inspect(end, later)

    def recover() -> None:
        store.recover()
        known.cycle.prune(store)

    moments(disk, recover, witness)
    disk.obey(nothing)


def _prove_damage(state: DiskState, known: Knowledge, inspector: Inspector) -> None:
    """Every way to spoil one file of what a crash has left. All that was valid until then is promised."""
    for damaged, step in damages(state):
        inspector.inspect(damaged, replace(known, spoilt=known.spoilt | {step}))


def prove_errors(cycle: Cycle, inspector: Inspector, *, crashes: bool = False) -> int:
    """Lets each operation of a cycle fail once, and from then on, and looks at what the next process finds.

    It finds what the process has left at its end; with ``crashes``, at every moment since the fault. Returns
    how many faults struck. Raises ViolationError.
    """
    rehearsal = CycleProcess(cycle, SimulatedDisk(), _FIRST)
    rehearsal.go()
    changing = [number for number, operation in enumerate(rehearsal.disk.log) if operation.mutates]
    for number in changing:
        for lasting in (False, True):
            _prove_error(cycle, number, lasting, inspector, crashes)
    return 2 * len(changing)


def _prove_error(cycle: Cycle, number: int, lasting: bool, inspector: Inspector, crashes: bool) -> None:
    struck: list[DiskOperation] = []

    def plan(n: int, operation: DiskOperation) -> Fail | None:
        if crashes and struck and operation.mutates:
            look()
        hit = operation.mutates and (n >= number if lasting else n == number)
        if hit:
            struck.append(operation)
        return Fail(errno.EIO, partial=True) if hit else None

    def look() -> None:
        known = Knowledge(cycle, life.acknowledged, life.spoilt, _SECOND)
        state = disk.state()
        if inspector.is_new(state, known):
            for end in ends(state, split=cycle.split):
                inspector.inspect(end, known)

    disk = SimulatedDisk(plan=plan)
    life = CycleProcess(cycle, disk, _FIRST)
    life.go()
    inspector.inspect_errors(disk, life, struck)
    look()


def _prove_one(work: tuple[Cycle, bool]) -> tuple[int, str]:
    cycle, deep = work
    # Small checkpoints of several blocks; of the store nothing else is changed.
    cipher.BLOCK_BYTES = _BLOCK_BYTES
    inspector = Inspector()
    try:
        prove(cycle, inspector, damaged=deep or cycle.is_small)
        prove_errors(cycle, inspector, crashes=deep)
    except ViolationError as violation:
        return len(inspector.states), f"{cycle}: {violation}"
    return len(inspector.states), ""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; 1 when an invariant does not hold."""
    parser = argparse.ArgumentParser(prog="python -m chaos.proof", description=str(__doc__).splitlines()[0])
    parser.add_argument("--deep", action="store_true", help="more cycles, every cipher")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args(argv)
    began_s = time.monotonic()
    work = [(cycle, options.deep) for cycle in cycles(options.deep)]
    # The long ones first, so that no core waits for the last.
    work.sort(key=lambda item: (item[0].saves, item[0].mode is not None), reverse=True)
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        results = pool.imap_unordered(_prove_one, work)
        return _report(results, len(work), began_s)


def _report(results: Iterable[tuple[int, str]], cycle_count: int, began_s: float) -> int:
    states, told, violations = 0, 0, 0
    for done, (count, violation) in enumerate(results, 1):
        states += count
        if violation:
            violations += 1
            print(f"VIOLATED {violation}", flush=True)
        if states - told >= _TOLD_EVERY:
            told = states
            seconds = time.monotonic() - began_s
            print(f"so far: {states:,} in {done} of {cycle_count} cycles, {seconds:.0f} s", flush=True)
    seconds = time.monotonic() - began_s
    verdict = f"{violations} violations" if violations else "every invariant holds"
    print(f"crash states: {states:,} distinct in {cycle_count} cycles, {seconds:.0f} s: {verdict}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
