"""A store's daily life in small: saves, retention, failures and a spoilt file, on a simulated disk.

The content of each checkpoint tells its step, and carries a canary that must never be seen on the disk where
encryption is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.codec.tensors import Record
from resilient.config import KeepPolicy, Sealing
from resilient.errors import StorageError
from resilient.policy import retention
from resilient.store.entry import Draft, Entry, Pruned
from resilient.store.store import Store

ROOT = Path("/run")
DIRECTORY = ROOT / "checkpoint" / "rank_0"
QUARANTINE = ROOT / "quarantine"
KEY = bytes(range(100, 132))
CANARY = b"PLAINTEXT CANARY"
NEXT_STEP = 99


@dataclass(frozen=True)
class Cycle:
    """So many saves with retention after each; ``failures`` are the steps saved on a failure.

    After the save of the step ``spoilt`` somebody spoils its data file; the next process finds it. With
    ``again`` the last step is saved a second time, as after a failure right behind a scheduled save. On a
    ``split`` disk a loss of power may leave a rename half done.
    """

    saves: int
    keep: int
    mode: str | None = None
    failures: frozenset[int] = frozenset()
    spoilt: int | None = None
    again: bool = False
    split: bool = False

    @property
    def is_small(self) -> bool:
        """Whether it has few enough states for what multiplies them."""
        return self.saves < 3 and self.keep == 1 and not (self.again or self.split)

    @property
    def steps(self) -> list[int]:
        """The steps that are saved, in order."""
        every = list(range(1, self.saves + 1))
        return [*every, self.saves] if self.again else every

    @property
    def sealing(self) -> Sealing:
        return Sealing(self.mode, KEY if self.mode != "SM4-CBC" else KEY[:16]) if self.mode else Sealing()

    def store(self, disk: SimulatedDisk, seed: int) -> Store:
        """What a process of this run has; each process draws other random numbers."""
        return Store(
            DIRECTORY,
            quarantine=QUARANTINE,
            files=disk,
            clock=SteppedClock(),
            entropy=SeededEntropy(seed),
            sealing=self.sealing,
            run_id="run-1",
        )

    def draft(self, step: int) -> Draft:
        """The checkpoint of a step."""
        content = self.content(step)
        return Draft(
            prefix="CKP",
            epoch=1,
            step_in_epoch=step,
            step=step,
            records=[Record("w", "Int8", (len(content),), content)],
            extra=CANARY,
            reason="exception" if step in self.failures else "schedule",
            failure=step in self.failures,
        )

    def content(self, step: int) -> bytes:
        """The one tensor of the checkpoint of a step."""
        return (CANARY + b" %08d " % step) * 8

    def prune(self, store: Store) -> Pruned:
        """Retention, as after every save."""
        return store.prune(partial(retention.kept, KeepPolicy(max_count=self.keep)))


@dataclass
class CycleProcess:
    """One process of a cycle: what it has reported as saved, and what was spoilt behind its back."""

    cycle: Cycle
    disk: SimulatedDisk
    seed: int
    acknowledged: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    spoilt: frozenset[int] = frozenset()
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = self.cycle.store(self.disk, self.seed)

    def go(self) -> None:
        """All of the cycle's saves. One that fails is told by not being acknowledged."""
        for step in self.cycle.steps:
            try:
                entry = self.store.commit(self.cycle.draft(step))
            except StorageError:
                self.failed += (step,)
                continue
            self.acknowledged += (step,)
            if step == self.cycle.spoilt:
                self._spoil(entry)
            self.cycle.prune(self.store)

    def _spoil(self, entry: Entry) -> None:
        content = bytearray(self.disk.content(entry.path))
        content[len(content) // 2] ^= 1
        self.disk.put(entry.path, bytes(content))
        self.spoilt |= {entry.step}


def cycles(deep: bool) -> Iterator[Cycle]:
    """Every cycle that is tried: 1 to 4 saves, 1 to 3 kept, sealed or not, with failures and spoilt files."""
    for cycle in _whole_renames(deep):
        yield cycle
        sealed = cycle.mode is not None
        if deep or (cycle.saves == 2 and cycle.is_small and sealed and not cycle.failures):
            yield replace(cycle, split=True)


def _whole_renames(deep: bool) -> Iterator[Cycle]:
    modes = (None, "AES-GCM", "AES-CBC", "SM4-CBC") if deep else (None, "AES-GCM")
    for mode in modes:
        for saves in range(1, 5):
            for keep in range(1, 4):
                if not deep and mode is None and saves > 2 and keep == 3:
                    continue  # nothing there that the sealed ones, or fewer kept, do not have
                yield Cycle(saves, keep, mode)
                if deep or (saves < 3 and keep < 3 and mode is not None):
                    yield Cycle(saves, keep, mode, again=True)
                if deep:
                    yield Cycle(saves, keep, mode, failures=frozenset({saves}), again=True)
                # A failure's checkpoint at the end, as the first attempt leaves it, or on the way.
                for failure in {saves, min(saves, 2)} if deep or keep == 2 else {saves}:
                    yield Cycle(saves, keep, mode, failures=frozenset({failure}))
                for spoilt in range(1, saves) if deep else {saves - 1} - {0}:
                    yield Cycle(saves, keep, mode, spoilt=spoilt)
