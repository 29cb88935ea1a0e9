"""Snapshots in a mirror: how a slot becomes a checkpoint, and a snapshot a mirror of its own.

The meta of a slot is one line of JSON and, behind it, the state's description as it stands in the checkpoint:

    {"epoch":2,"step_in_epoch":3,"step":11,"info":{...},"entries":[[name, dtype, dims, hexadecimal], ...]}
    <extra>

``info`` is what retention judges by; ``entries`` are what stock reads beside the parameters (see
``resilient.worker.boundary.append_info``), which are small and change from step to step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from resilient.codec.tensors import Record
from resilient.errors import MirrorError
from resilient.host.shared_memory import SharedMemory
from resilient.saving.in_process import Snapshot
from resilient.wire.mirror import NONSENSE, Area, Mirror, MirrorLayout, Slot, is_count, place

WEIGHTS_SECTION = 2**31
"""The section of areas that only weights files hold."""


@dataclass(frozen=True)
class Header:
    """What one boundary is beside its tensors; counters as in ``Snapshot``."""

    step: int
    epoch: int
    step_in_epoch: int
    entries: tuple[Record, ...]
    extra: bytes
    info: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The meta of a slot."""
        entries = [[r.name, r.dtype, r.dims, bytes(r.data).hex()] for r in self.entries]
        first = {"step": self.step, "epoch": self.epoch, "step_in_epoch": self.step_in_epoch}
        return (
            json.dumps({**first, "info": dict(self.info), "entries": entries}).encode() + b"\n" + self.extra
        )

    @classmethod
    def decode(cls, meta: bytes) -> Header:
        """The inverse of :meth:`encode`. Raises MirrorError."""
        line, _, extra = meta.partition(b"\n")
        try:
            content = json.loads(line)
            entries = tuple(
                Record(name, dtype, tuple(dims), bytes.fromhex(data))
                for name, dtype, dims, data in content.pop("entries")
            )
            header = cls(entries=entries, extra=extra, **content)
        except NONSENSE as error:
            raise MirrorError(f"the meta of a slot makes no sense: {error}") from error
        if not _is_sensible(header):
            raise MirrorError("the meta of a slot makes no sense")
        return header


def _is_sensible(header: Header) -> bool:
    texts = [text for record in header.entries for text in (record.name, record.dtype)]
    counts = [n for record in header.entries for n in record.dims]
    counters = (header.step, header.epoch, header.step_in_epoch)
    return all(isinstance(text, str) for text in texts) and all(is_count(n) for n in (*counters, *counts))


def snapshot(mirror: Mirror, slot: Slot, reason: str, *, failure: bool) -> Snapshot:
    """What is in a slot, over the mirror's own memory. Raises MirrorError."""
    header = Header.decode(mirror.meta(slot))
    if header.step != slot.step:
        raise MirrorError(f"the slot of step {slot.step} holds step {header.step}")
    areas = mirror.layout.areas
    own = [_record(area, mirror.view(slot.number, area)) for area in areas]
    # Weights files belong to scheduled checkpoints: nothing is resumed from them.
    kinds = {} if failure else mirror.layout.weights
    return Snapshot(
        prefix=mirror.layout.prefix,
        step=header.step,
        epoch=header.epoch,
        step_in_epoch=header.step_in_epoch,
        reason=reason,
        failure=failure,
        records=tuple(
            record for area, record in zip(areas, own, strict=True) if area.section != WEIGHTS_SECTION
        )
        + header.entries,
        extra=header.extra,
        info=header.info,
        weights={kind: tuple(_shown(own[n]) for n in numbers) for kind, numbers in kinds.items()},
        check=partial(_demand_still, mirror, slot),
    )


def _demand_still(mirror: Mirror, slot: Slot) -> None:
    if not mirror.is_still(slot):
        raise MirrorError("the memory was written again before it could be committed")


def mirror_of(snapshot: Snapshot, run_id: str, rank: int) -> tuple[Mirror, Slot]:
    """A snapshot in a mirror of its own, with one slot. Raises OSError when there is no memory."""
    sources: list[Record] = list(snapshot.records)
    known = {_identity(record): number for number, record in enumerate(sources)}
    weights: dict[str, tuple[int, ...]] = {}
    for kind, records in snapshot.weights.items():
        for record in records:
            if _identity(record) not in known:
                known[_identity(record)] = len(sources)
                sources.append(Record(record.name, record.dtype, record.dims, record.data, WEIGHTS_SECTION))
        weights[kind] = tuple(known[_identity(record)] for record in records)
    areas = place([(r.name, r.dtype, r.dims, r.section, memoryview(r.data).nbytes) for r in sources])
    layout = MirrorLayout(run_id, rank, snapshot.prefix, areas, weights)
    header = Header(snapshot.step, snapshot.epoch, snapshot.step_in_epoch, (), snapshot.extra, snapshot.info)
    meta = header.encode()
    mirror = Mirror.make(layout, 1, SharedMemory.create, meta_bytes=len(meta))

    def fill(number: int) -> None:
        for area, record in zip(areas, sources, strict=True):
            if area.size_bytes:
                mirror.view(number, area)[:] = memoryview(record.data).cast("B")

    return mirror, mirror.write(snapshot.step, meta, fill)


def _identity(record: Record) -> tuple[int, str, str, tuple[int, ...]]:
    """What a tensor in a weights file is known by. Two tensors may share their bytes: all empty ones do."""
    return id(record.data), record.name, record.dtype, record.dims


def _record(area: Area, data: memoryview) -> Record:
    return Record(area.name, area.dtype, area.dims, data, area.section)


def _shown(record: Record) -> Record:
    """A record of a weights file: stock's section, whatever it has in the checkpoint."""
    return Record(record.name, record.dtype, record.dims, record.data, 0)
