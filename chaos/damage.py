"""One spoilt file: every state in which somebody has damaged one durable file of a checkpoint since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chaos.cycle import DIRECTORY
from chaos.disk_state import DiskState, Folder
from chaos.simulated_disk import SimulatedDisk
from resilient.store import layout


def damages(state: DiskState) -> Iterator[tuple[DiskState, int]]:
    """Each state with one file flipped in its middle, cut in half, emptied, or gone; and its step."""
    nodes, folders = dict(state.nodes), dict(state.folders)
    for name, number in folders.get(str(DIRECTORY), Folder()).synced:
        step = _step_of(name)
        if step is None:
            continue
        content = nodes[number].content
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else b""
        for spoilt in {flipped, content[:middle], b""} - {content}:
            changed = {**nodes, number: replace(nodes[number], synced=spoilt, pending=())}
            yield DiskState(tuple(sorted(changed.items())), state.folders, state.time), step
        yield _without(state, str(DIRECTORY), name), step


def _without(state: DiskState, directory: str, name: str) -> DiskState:
    folders = dict(state.folders)
    left = tuple(item for item in folders[directory].synced if item[0] != name)
    folders[directory] = replace(folders[directory], synced=left)
    # Through a disk, which leaves out the files that nothing can bring back any more.
    return SimulatedDisk(replace(state, folders=tuple(sorted(folders.items())))).state()


def _step_of(name: str) -> int | None:
    """The step of a checkpoint's file, finished or not; None for any other file."""
    final = layout.final_of(name) if layout.is_temporary(name) else name
    if final.endswith(layout.MANIFEST_SUFFIX):
        final = layout.data_of(final)
    parsed = layout.parse_checkpoint(final) if final.endswith(layout.DATA_SUFFIX) else None
    return parsed.step_in_epoch if parsed else None
