"""How fast a sealed, durable checkpoint is, beside stock MindSpore and beside the disk itself.

    python benchmarks/store.py [--sizes 200,1000] [--rounds 5] [--modes AES-GCM] [--folder DIR] [--json FILE]

Every peer saves or loads the same float32 parameters, in the same process and on the same disk; they take
turns, so that what else the machine does hits all of them. Figures are medians; what counts are the ratios.
Memory is what the peak of the resident set grows by, in a process of its own for each peer.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from resilient.codec.record import Record
from resilient.config import Sealing
from resilient.host.world import World
from resilient.state import capture
from resilient.store.entry import Draft
from resilient.store.opening import open_store

KEYS = {"AES-GCM": b"k" * 32, "AES-CBC": b"k" * 32, "SM4-CBC": b"k" * 16}
TENSOR_MB = 16


class Network(nn.Cell):
    """So many megabytes of float32, in tensors of 16 MB."""

    def __init__(self, size_mb: int) -> None:
        super().__init__()
        generator = np.random.default_rng(1)
        count = max(1, size_mb // TENSOR_MB)
        for number in range(count):
            values = generator.standard_normal(size_mb * 1_000_000 // count // 4).astype(np.float32)
            setattr(self, f"w{number}", ms.Parameter(ms.Tensor(values), name=f"w{number}"))


@dataclass(frozen=True)
class Bench:
    """One network and the folder that everybody writes to."""

    network: Network
    folder: Path
    size_mb: int

    # What the disk and the memory can do

    def memcpy(self) -> None:
        for parameter in self.network.get_parameters():
            view = parameter.asnumpy()
            np.copyto(self._buffer(view), view)

    def _buffer(self, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        # One buffer that stays: fresh pages would measure the kernel's page faults.
        found = _BUFFERS.get(like.size)
        if found is None:
            found = _BUFFERS[like.size] = np.ones_like(like)
        return found

    def write(self, flags: int = 0) -> None:
        """The same bytes, written and synced as they are; with O_DIRECT in aligned blocks of 4 MiB."""
        path = self.folder / "raw"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
        block = _aligned()
        for parameter in self.network.get_parameters():
            data = memoryview(parameter.asnumpy()).cast("B")
            for start in range(0, len(data), len(block)):
                piece = data[start : start + len(block)]
                if flags:
                    block[: len(piece)] = piece
                    os.write(descriptor, block[: -(-len(piece) // 4096) * 4096])
                else:
                    while piece:
                        piece = piece[os.write(descriptor, piece) :]
        os.fsync(descriptor)
        os.close(descriptor)

    # Ours

    def save(self, mode: str | None) -> None:
        store = self._store(mode)
        records = [_record(parameter) for parameter in self.network.get_parameters()]
        store.commit(Draft("B", 1, 1, 1, tuple(records), b"{}", "benchmark", False))

    def load(self, mode: str | None) -> None:
        """Reads, verifies and decrypts into the parameters' own memory."""
        store = self._store(mode)
        targets = {p.name: capture.as_bytes(p.asnumpy()).data for p in self.network.get_parameters()}
        _cold(store.directory)
        assert store.load_newest(lambda entry: lambda name, *rest: targets[name]) is not None

    def _store(self, mode: str | None) -> Any:
        sealing = Sealing(mode, KEYS[mode]) if mode else Sealing()
        return open_store(self.folder / "ours", World(), sealing, "run")

    # Stock

    def stock_save(self, mode: str | None, asynchronous: bool | str = False) -> None:
        path = self.folder / "stock.ckpt"
        sealed = {"enc_key": KEYS[mode], "enc_mode": mode} if mode else {}
        ms.save_checkpoint(self.network, str(path), async_save=asynchronous, **sealed)
        if asynchronous:
            self.settle()

    def settle(self) -> None:
        """Waits for what stock saves in the background."""
        while not _is_idle():
            time.sleep(0.001)

    def stock_load(self, mode: str | None) -> None:
        sealed = {"dec_key": KEYS[mode], "dec_mode": mode} if mode else {}
        _cold(self.folder / "stock.ckpt")
        state = ms.load_checkpoint(str(self.folder / "stock.ckpt"), **sealed)
        ms.load_param_into_net(self.network, state)

    def clear(self, name: str) -> None:
        """Removes what a saving peer has left, so that its next turn writes new files."""
        path = self.folder / ("stock.ckpt" if "stock" in name else "ours" if "resilient" in name else "raw")
        if "load" not in name:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        os.sync()


_BUFFERS: dict[int, np.ndarray[Any, Any]] = {}


def _aligned() -> memoryview:
    import mmap

    return memoryview(mmap.mmap(-1, 4 * 1024 * 1024))


def _record(parameter: ms.Parameter) -> Record:
    return capture.tensor_record(parameter.name, capture.values(parameter), "Float32")


def _is_idle() -> bool:
    import threading

    return not multiprocessing.active_children() and not any(
        thread.name == "asyn_save_ckpt" for thread in threading.enumerate()
    )


def _cold(path: Path) -> None:
    """Takes a file, or a folder's files, out of the page cache: after a crash one reads from the disk."""
    for file in path.iterdir() if path.is_dir() else [path]:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def peers(bench: Bench, mode: str) -> dict[str, Callable[[], None]]:
    """Who takes turns, by name. Saves come before the loads of the same file."""
    return {
        "memcpy": bench.memcpy,
        "plain write + fsync": bench.write,
        "O_DIRECT write + fsync": partial(bench.write, os.O_DIRECT),
        "stock save": partial(bench.stock_save, mode),
        "stock save, thread": partial(bench.stock_save, mode, "thread"),
        "stock save, process": partial(bench.stock_save, mode, "process"),
        "resilient save": partial(bench.save, mode),
        "stock load": partial(bench.stock_load, mode),
        "resilient load": partial(bench.load, mode),
    }


def measure(bench: Bench, mode: str, rounds: int) -> dict[str, float]:
    """Median seconds of each peer."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, act in peers(bench, mode).items():
            # Memory that the machine has to be given first would cost whoever comes first.
            bench.write()
            bench.clear("raw")
            bench.clear(name)
            began_s = time.perf_counter()
            act()
            seconds.setdefault(name, []).append(time.perf_counter() - began_s)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _growth(size_mb: int, mode: str, name: str, folder: str, answer: Any) -> None:
    bench = Bench(Network(size_mb), Path(folder), size_mb)
    bench.network.w0.asnumpy()
    bench.clear(name)
    if "load" in name:
        bench.clear(name.replace("load", "save"))
        peers(bench, mode)[name.replace("load", "save")]()
    # Freed memory that is reused would hide what is needed: it goes back to the kernel first.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kb()
    peers(bench, mode)[name]()
    answer.put((_peak_kb() - before) / 1024)


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory(size_mb: int, mode: str, folder: Path) -> dict[str, float]:
    """MiB that the peak of each peer's own process grows by."""
    grown = {}
    context = multiprocessing.get_context("spawn")
    for name in ("stock save", "resilient save", "stock load", "resilient load"):
        answer = context.Queue()
        process = context.Process(target=_growth, args=(size_mb, mode, name, str(folder), answer))
        process.start()
        grown[name] = answer.get()
        process.join()
    return grown


def table(size_mb: int, mode: str, seconds: dict[str, float], grown: dict[str, float]) -> str:
    """One size and mode as Markdown, with the ratios that the goals are about."""
    lines = [
        f"\n{size_mb} MB of float32, {mode}\n",
        "| | seconds | MB/s | x stock | x plain write | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, value in seconds.items():
        stock = seconds["stock load" if "load" in name else "stock save"] / value
        plain = seconds["plain write + fsync"] / value
        peak = f"+{grown[name]:.0f} MiB" if name in grown else ""
        lines.append(f"| {name} | {value:.3f} | {size_mb / value:.0f} | {stock:.2f} | {plain:.2f} | {peak} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmark and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="200,1000", help="megabytes of state, comma-separated")
    parser.add_argument("--modes", default="AES-GCM")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="resilient-bench-", dir=options.folder))
    results = []
    try:
        for size_mb in map(int, options.sizes.split(",")):
            bench = Bench(Network(size_mb), folder, size_mb)
            for mode in options.modes.split(","):
                seconds = measure(bench, mode, options.rounds)
                grown = {} if options.no_memory else memory(size_mb, mode, folder)
                print(table(size_mb, mode, seconds, grown), flush=True)
                results.append({"size_mb": size_mb, "mode": mode, "seconds": seconds, "peak_mib": grown})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps({"cores": os.cpu_count(), "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
