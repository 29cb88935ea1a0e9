"""How long a folder of many checkpoints takes to list and to recover, and one more save with retention."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from resilient.codec.tensors import Record
from resilient.config import KeepPolicy, Sealing
from resilient.host.world import World
from resilient.policy import retention
from resilient.store.entry import Draft
from resilient.store.opening import open_store

FEW, MANY = 10, 2000
_SEALING = Sealing("AES-GCM", b"k" * 32)
_KEEP_ALL = KeepPolicy(max_count=10**6)


def measure(folder: Path, rounds: int) -> dict[str, dict[int, float]]:
    """Seconds by operation and number of checkpoints; the saves take turns, and their medians count."""
    roots = {count: _fill(folder / f"folder_{count}", count) for count in (FEW, MANY)}
    seconds: dict[str, dict[int, float]] = {"list": {}, "recover": {}}
    stores = {}
    for count, root in roots.items():
        stores[count] = store = _open(root)
        seconds["list"][count] = _time(store.entries)
        seconds["recover"][count] = _time(_open(root).recover)
    kept: dict[int, list[float]] = {count: [] for count in roots}
    removed: dict[int, list[float]] = {count: [] for count in roots}
    for number in range(rounds):
        for count, store in stores.items():
            kept[count].append(_time(partial(_save, store, 10**6 + number, _KEEP_ALL)))
    for count, store in stores.items():
        # The first removal of a process reads all checkpoints that stay.
        store.prune(partial(retention.kept, KeepPolicy(max_count=count)))
    for number in range(rounds):
        for count, store in stores.items():
            policy = KeepPolicy(max_count=count)
            removed[count].append(_time(partial(_save, store, 10**7 + number, policy)))
    seconds["save, all stay"] = {count: statistics.median(values) for count, values in kept.items()}
    seconds["save, the oldest goes"] = {count: statistics.median(values) for count, values in removed.items()}
    for root in roots.values():
        shutil.rmtree(root)
    return seconds


def table(seconds: dict[str, dict[int, float]]) -> str:
    """The figures as Markdown, in milliseconds."""
    lines = [
        "\nA folder of small checkpoints, AES-GCM, milliseconds\n",
        f"| | {FEW} checkpoints | {MANY} checkpoints | more | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, by_count in seconds.items():
        few, many = (by_count[count] * 1000 for count in (FEW, MANY))
        lines.append(f"| {name} | {few:.1f} | {many:.1f} | {many - few:+.1f} | {many / few:.1f} |")
    return "\n".join(lines)


def _open(root: Path) -> Any:
    return open_store(root, World(), _SEALING, "run")


def _fill(root: Path, count: int) -> Path:
    store = _open(root)
    fsync = os.fsync
    # Only while the folder is filled: every measured save syncs.
    os.fsync = lambda descriptor: None
    try:
        for step in range(1, count + 1):
            store.commit(_draft(step))
    finally:
        os.fsync = fsync
    os.sync()
    return root


def _save(store: Any, step: int, policy: KeepPolicy) -> None:
    store.commit(_draft(step))
    store.prune(partial(retention.kept, policy))


def _draft(step: int) -> Draft:
    record = Record("w", "Float32", (1000,), bytes(4000))
    return Draft("B", step, 1, step, (record,), b"{}", "benchmark", False)


def _time(act: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    act()
    return time.perf_counter() - began_s
