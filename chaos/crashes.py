"""Every crash of a program on a simulated disk: the states it passes through, and what may be left of each.

A program runs once. Before each operation that changes something its disk is one more state in which the
process may die (nothing is lost then) or the machine may lose its power (anything may be lost that is not
synced, in every combination that ``disk_state`` knows). A write may also be cut off in its middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from chaos.disk_state import DiskState, after_power_loss
from chaos.faults import DiskOperation, Fail, Kill
from chaos.simulated_disk import SimulatedDisk


def moments(disk: SimulatedDisk, run: Callable[[], None], witness: Callable[[DiskState], None]) -> None:
    """Runs a program on this disk and shows the witness the state before each change, and the last one."""

    def plan(number: int, operation: DiskOperation) -> Fail | Kill | None:
        if operation.mutates:
            state = disk.state()
            witness(state)
            if operation.kind == "write" and operation.size_bytes > 1:
                witness(_half_written(state, operation))
        return None

    disk.obey(plan)
    run()
    witness(disk.state())


def _half_written(state: DiskState, operation: DiskOperation) -> DiskState:
    """The state in which half of a write has been done. What it would have written does not matter."""
    copy = SimulatedDisk(state)
    copy.append(copy.number_of(operation.path), operation.path, b"\xa5" * (operation.size_bytes // 2))
    return copy.state()


def ends(state: DiskState, *, split: bool = False) -> Iterator[DiskState]:
    """What the next process may find: after the death of the process, and of the machine in every way.

    ``split`` as in ``disk_state``: a rename may be done by half.
    """
    yield timeless(state)
    chosen: list[int] = []
    while True:
        # One walk through the tree of choices; then the last choice that has another way takes it.
        widths: list[int] = []

        def choose(width: int, widths: list[int] = widths) -> int:
            widths.append(width)
            if len(chosen) < len(widths):
                chosen.append(0)
            return chosen[len(widths) - 1]

        yield timeless(after_power_loss(state, choose, split=split))
        while chosen and chosen[-1] + 1 >= widths[len(chosen) - 1]:
            chosen.pop()
        if not chosen:
            return
        chosen[-1] += 1


def timeless(state: DiskState) -> DiskState:
    """The same state without times: two that differ in nothing else are one."""
    nodes = tuple((n, replace(node, stamp=0) if node.stamp else node) for n, node in state.nodes)
    return DiskState(nodes, state.folders, 0)
