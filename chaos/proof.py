"""python -m chaos.proof [--deep]: every crash state of a store's daily life, held against the invariants.

For each cycle of saves and retention: every moment at which the process or the machine may die, everything
that may be left then, the recovery from it, every moment of *that* at which it may die again, and one more
save. Then every operation of the cycle fails, once and from then on. Equal states are counted once.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence

from chaos.crashes import ends, moments
from chaos.cycle import Cycle, Life, cycles
from chaos.disk import SimulatedDisk
from chaos.disk_state import State
from chaos.faults import Fail, Operation, nothing
from chaos.invariants import Inspector, Knowledge, ViolationError
from resilient.codec import cipher

_BLOCK_BYTES = 128
_FIRST, _SECOND, _THIRD = 1, 100, 200


def prove(cycle: Cycle, inspector: Inspector, depth: int = 2) -> None:
    """Holds every crash state of a cycle against the invariants; raises ViolationError.

    ``depth`` 1 is a crash during the cycle; with 2, recoveries crash as well.
    """
    life = Life(cycle, SimulatedDisk(), _FIRST)

    def witness(state: State) -> None:
        known = Knowledge(cycle, life.acknowledged, life.spoilt, _SECOND)
        if not inspector.is_new(state, known):
            return
        for end in ends(state):
            disk = inspector.inspect(end, known)
            if disk is not None and depth > 1 and any(operation.mutates for operation in disk.log):
                _prove_recovery(end, known, inspector)

    moments(life.disk, life.go, witness)


def _prove_recovery(state: State, known: Knowledge, inspector: Inspector) -> None:
    """Every crash during the recovery from a crash."""
    disk = SimulatedDisk(state)
    store = known.cycle.store(disk, known.seed)
    later = Knowledge(known.cycle, known.acknowledged, known.spoilt, _THIRD)

    def witness(state: State) -> None:
        if inspector.is_new(state, later):
            for end in ends(state):
                inspector.inspect(end, later)

    def recover() -> None:
        store.recover()
        known.cycle.prune(store)

    moments(disk, recover, witness)
    disk.obey(nothing)


def prove_errors(cycle: Cycle, inspector: Inspector) -> int:
    """Lets each operation of a cycle fail once, and from then on, and looks at what the next process finds.

    Returns how many faults struck. Raises ViolationError.
    """
    rehearsal = Life(cycle, SimulatedDisk(), _FIRST)
    rehearsal.go()
    changing = [number for number, operation in enumerate(rehearsal.disk.log) if operation.mutates]
    for number in changing:
        for lasting in (False, True):
            _prove_error(cycle, number, lasting, inspector)
    return 2 * len(changing)


def _prove_error(cycle: Cycle, number: int, lasting: bool, inspector: Inspector) -> None:
    struck: list[Operation] = []

    def plan(n: int, operation: Operation) -> Fail | None:
        hit = operation.mutates and (n >= number if lasting else n == number)
        if hit:
            struck.append(operation)
        return Fail(errno.EIO, partial=True) if hit else None

    disk = SimulatedDisk(plan=plan)
    life = Life(cycle, disk, _FIRST)
    life.go()
    inspector.inspect_errors(disk, life, struck)
    known = Knowledge(cycle, life.acknowledged, life.spoilt, _SECOND)
    for end in ends(disk.state()):
        inspector.inspect(end, known)


def _prove_one(work: tuple[Cycle, int]) -> tuple[int, str]:
    cycle, depth = work
    # Small checkpoints of several blocks; of the store nothing else is changed.
    cipher.BLOCK_BYTES = _BLOCK_BYTES
    inspector = Inspector()
    try:
        prove(cycle, inspector, depth)
        prove_errors(cycle, inspector)
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
    work = [(cycle, 2) for cycle in cycles(options.deep)]
    # The long ones first, so that no core waits for the last.
    work.sort(key=lambda item: (item[0].saves, item[0].mode is not None), reverse=True)
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        results = pool.imap_unordered(_prove_one, work)
        return _report(results, len(work), began_s)


def _report(results: Iterable[tuple[int, str]], cycle_count: int, began_s: float) -> int:
    states, violations = 0, []
    for count, violation in results:
        states += count
        if violation:
            violations.append(violation)
            print(f"VIOLATED {violation}", flush=True)
    seconds = time.monotonic() - began_s
    verdict = f"{len(violations)} violations" if violations else "every invariant holds"
    print(f"crash states: {states:,} distinct in {cycle_count} cycles, {seconds:.0f} s: {verdict}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
