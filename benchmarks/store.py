"""How fast a sealed, durable checkpoint is, compared with stock MindSpore, PyTorch, and the disk itself.

    python benchmarks/store.py [--sizes 200,1000] [--rounds 5] [--modes AES-GCM] [--folder DIR] [--json FILE]

The peers (see ``peers``) take turns, so that other load on the machine hits all of them. Figures are medians;
the ratios count. Memory is how much the peak of the resident set grows, in a process of its own for each
peer.
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
from pathlib import Path
from typing import Any

import folder as many
from peers import Bench, PeerNetwork, reads

PLAIN, DIRECT = "plain write + fsync", "O_DIRECT write + fsync"


def measure(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """The seconds of each turn of each peer."""
    seconds: dict[str, list[float]] = {}
    digest = bench.digest()
    for _ in range(rounds):
        for name, act in bench.peers().items():
            # Otherwise the first peer alone would pay for memory that the machine has to get first.
            bench.write()
            bench.clear("raw")
            bench.clear(name)
            began_s = time.perf_counter()
            act()
            seconds.setdefault(name, []).append(time.perf_counter() - began_s)
    assert bench.digest() == digest, "somebody has loaded something else than what was saved"
    return seconds


def memory(size_mb: int, mode: str, folder: Path) -> dict[str, float]:
    """How many MiB the peak of each peer's own process grows."""
    grown = {}
    context = multiprocessing.get_context("spawn")
    for name in ("stock save", "resilient save", "stock load", "resilient load"):
        answer = context.Queue()
        process = context.Process(target=_growth, args=(size_mb, mode, name, str(folder), answer))
        process.start()
        grown[name] = answer.get()
        process.join()
    return grown


def _growth(size_mb: int, mode: str, name: str, folder: str, answer: Any) -> None:
    bench = Bench(PeerNetwork(size_mb), mode, Path(folder))
    bench.digest()
    saving = name.replace("load", "save")
    bench.clear(saving)
    if name != saving:
        bench.peers()[saving]()
    # Reused memory would hide the need: freed memory goes back to the kernel first.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kb()
    bench.peers()[name]()
    answer.put((_peak_kb() - before) / 1024)


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def table(size_mb: int, mode: str, turns: dict[str, list[float]], grown: dict[str, float]) -> str:
    """One size and mode as Markdown, with the ratios of the goals: speed, so more is better."""
    seconds = {name: statistics.median(values) for name, values in turns.items()}
    lines = [
        f"\n{size_mb} MB of float32, {mode}\n",
        "| | seconds | (least, most) | MB/s | x stock | x plain write | x O_DIRECT | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, value in seconds.items():
        others = ["stock load"] if reads(name) else ["stock save", PLAIN, DIRECT]
        ratios = [f"{seconds[other] / value:.2f}" for other in others] + [""] * (3 - len(others))
        extent = f"({min(turns[name]):.3f}, {max(turns[name]):.3f})"
        peak = f"+{grown[name]:.0f} MiB" if name in grown else ""
        cells = [name, f"{value:.3f}", extent, f"{size_mb / value:.0f}", *ratios, peak]
        lines.append(f"| {' | '.join(cells)} |")
    slower = max(seconds["read (cold)"], seconds["decrypt alone"])
    lines.append(f"\nload: {seconds['resilient load'] / slower:.2f} of the slower of reading and decrypting")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmark and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="200,1000", help="megabytes of state, comma-separated")
    parser.add_argument("--modes", default="AES-GCM")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-many", action="store_true", help="without the folder of 2,000 checkpoints")
    parser.add_argument("--json", help="also write the figures, turn by turn, here")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="resilient-bench-", dir=options.folder))
    figures: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "states": []}
    try:
        for size_mb in map(int, options.sizes.split(",")):
            network = PeerNetwork(size_mb)
            for mode in options.modes.split(","):
                turns = measure(Bench(network, mode, folder), options.rounds)
                grown = {} if options.no_memory else memory(size_mb, mode, folder)
                print(table(size_mb, mode, turns, grown), flush=True)
                figures["states"].append(
                    {"size_mb": size_mb, "mode": mode, "seconds": turns, "peak_mib": grown}
                )
        if not options.no_many:
            figures["folder"] = many.measure(folder, options.rounds)
            print(many.table(figures["folder"]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
