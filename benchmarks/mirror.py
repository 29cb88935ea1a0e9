"""The mirror's cost for the training: the stall of one snapshot, and the time of whole trainings.

    python benchmarks/mirror.py [--sizes 200,1000] [--rounds 9] [--stock-rounds 3] [--overhead-rounds 5]
                                [--only stall|overhead] [--folder DIR] [--json FILE] [-- OPTIONS]

The stall is how long the training waits for one snapshot, while it observes the boundary and copies it to
the mirror. It is compared with one memcpy of the same bytes into memory that is already there, and with
stock's three ways to save. The overhead is the training time of a script under ``resilient-run`` against
plain ``python``. On a busy machine the share of time in our callbacks is the steadier figure. All competitors
take turns in one run, so that other load on the machine hits all of them. Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from peers import Bench, PeerNetwork

from resilient.config import DEFAULT_KEEP, DEFAULT_SAVE
from resilient.host.shared_memory import SharedMemory
from resilient.host.world import World
from resilient.policy.settings import Settings
from resilient.saving.remote import MirrorMeans, RemoteSaver
from resilient.state.side_state import SideState
from resilient.state.snapshot import Progress
from resilient.wire.link import Link
from resilient.wire.mirror import Mirror
from resilient.worker.boundary.composition import Call, Composer
from resilient.worker.boundary.mirror_keeper import MirrorKeeper

SLOTS = 3
PROGRAM = Path(__file__).parent / "programs" / "timed.py"
TRAININGS = {"digits": 1000, "tiny": 4000, "wide": 300}
"""The trainings that measure the overhead, and how many steps each has."""


# Stall


class Snapshots:
    """The mirror's keeper on one network, as in a supervised training. Nobody reads the link."""

    def __init__(self, network: Any) -> None:
        settings = Settings(save=DEFAULT_SAVE, keep=DEFAULT_KEEP, asynchronous="mirror")
        self._call = Call(progress=Progress(0, 1, 100), ordinal=0, trained=[network], network=network)
        self._composer = Composer(self._call, settings, {}, SideState(print))
        layout = self._composer.mirror_layout("benchmark", 0)
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        means = MirrorMeans(
            make=lambda meta_bytes, blob_bytes: Mirror.make(layout, SLOTS, SharedMemory.create),
            remote=RemoteSaver(Link(ours)),
            alone=lambda: self._no_saver(),
            failed=lambda step, error: self._not_held(error),
            lacking=self._not_held,
            clock=World().clock,
        )
        self._keeper = MirrorKeeper(self._composer, means, 1, waits=False)

    def _no_saver(self) -> Any:
        raise AssertionError("the link is open")

    def _not_held(self, error: str) -> None:
        raise AssertionError(error)

    def take(self) -> None:
        """One snapshot, as at a step boundary."""
        self._keeper.hold(self._composer.observe(self._call.progress, None))


class Copies:
    """One memcpy of all parameters, into memory that is there already."""

    def __init__(self, network: Any) -> None:
        self._parameters = list(network.get_parameters())
        self._targets = [np.ones_like(p.asnumpy()) for p in self._parameters]

    def take(self) -> None:
        for parameter, target in zip(self._parameters, self._targets, strict=True):
            np.copyto(target, parameter.asnumpy())


def stall(size_mb: int, folder: Path, rounds: int, stock_rounds: int) -> dict[str, Any]:
    """Seconds that the training waits, by what holds it up."""
    network = PeerNetwork(size_mb)
    snapshots, copies = Snapshots(network), Copies(network)
    fresh = [_timed(snapshots.take) for _ in range(SLOTS)]
    seconds: dict[str, list[float]] = {"one memcpy": [], "mirror": []}
    for _ in range(rounds):
        seconds["one memcpy"].append(_timed(copies.take))
        seconds["mirror"].append(_timed(snapshots.take))
    bench = Bench(network, "AES-GCM", folder)
    for _ in range(stock_rounds):
        for name, way in (("stock save", False), ("stock, thread", "thread"), ("stock, process", "process")):
            seconds.setdefault(name, []).append(_timed(partial(_stock_save, bench, way)))
            bench.settle()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    medians["mirror, first copies"] = statistics.median(fresh)
    spread = {name: [min(values), max(values)] for name, values in seconds.items()}
    ratios = sorted(m / c for m, c in zip(seconds["mirror"], seconds["one memcpy"], strict=True))
    ratio = statistics.median(ratios)
    return {
        "size_mb": size_mb,
        "seconds": medians,
        "spread": spread,
        "mirror/memcpy": ratio,
        "ratios": ratios,
    }


def _stock_save(bench: Bench, way: bool | str) -> None:
    ms.save_checkpoint(bench.network, str(bench.folder / "stock.ckpt"), async_save=way)


def _timed(act: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    act()
    return time.perf_counter() - began_s


def stall_table(result: dict[str, Any]) -> str:
    """One size as Markdown."""
    base = result["seconds"]["one memcpy"]
    lines = [
        f"\n{result['size_mb']} MB of state\n",
        "| the training waits for | ms | x one memcpy |",
        "|---|---|---|",
    ]
    for name, value in result["seconds"].items():
        lines.append(f"| {name} | {value * 1e3:.1f} | {value / base:.2f} |")
    ratios = result["ratios"]
    lines.append(
        f"\nmirror / memcpy, pair by pair: median {result['mirror/memcpy']:.2f}, "
        f"from {ratios[0]:.2f} to {ratios[-1]:.2f}"
    )
    return "\n".join(lines)


# Overhead


def overhead(kind: str, rounds: int, options: list[str], folder: Path) -> dict[str, Any]:
    """Training and process seconds of one script, plain and supervised, in turns."""
    measured: dict[str, list[tuple[float, float, float]]] = {"python": [], "resilient-run": []}
    for number in range(rounds):
        run = folder / f"{kind}-{number}"
        words = [str(PROGRAM), "-", "--kind", kind, "--steps", str(TRAININGS[kind])]
        supervised = ["-m", "supervisor.command.cli", "--quiet", "--run-dir", str(run), *options, *words]
        for name, command in (("python", words), ("resilient-run", supervised)):
            measured[name].append(_run([sys.executable, *command]))
        shutil.rmtree(run)
    pairs = zip(measured["resilient-run"], measured["python"], strict=True)
    ratios = sorted(ours[0] / plain[0] for ours, plain in pairs)
    medians = {
        name: [statistics.median(v) for v in zip(*values, strict=True)] for name, values in measured.items()
    }
    return {
        "training": kind,
        "steps": TRAININGS[kind],
        "seconds": medians,
        "runs": measured,
        "ratios": ratios,
        "shares": sorted(ours / training for training, _, ours in measured["resilient-run"]),
    }


def _run(command: list[str]) -> tuple[float, float, float]:
    """Runs a training: its own figure for how long it trained, how long the process took, and how much of
    the training our callbacks took."""
    began_s = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "GLOG_v": "3"}
    )
    took_s = time.perf_counter() - began_s
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    words = [line.split() for line in done.stdout.splitlines()]
    figures = {name: float(value) for name, value in (pair for pair in words if len(pair) == 2)}
    return figures["training"], took_s, figures.get("ours", 0.0)


def overhead_table(result: dict[str, Any]) -> str:
    """One training as Markdown."""
    lines = [
        f"\n{result['training']}, {result['steps']} steps\n",
        "| | training s | process s |",
        "|---|---|---|",
    ]
    for name, (training, process, _) in result["seconds"].items():
        lines.append(f"| {name} | {training:.3f} | {process:.1f} |")
    ratios = [f"{100 * (ratio - 1):+.1f}%" for ratio in result["ratios"]]
    middle = 100 * (statistics.median(result["ratios"]) - 1)
    lines.append(f"\noverhead, pair by pair: median {middle:+.1f}% ({', '.join(ratios)})")
    shares = [f"{100 * share:.1f}%" for share in result["shares"]]
    middle = 100 * statistics.median(result["shares"])
    lines.append(f"of the training, spent in our callbacks: median {middle:.1f}% ({', '.join(shares)})")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmarks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="200,1000", help="megabytes of state, comma-separated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--stock-rounds", type=int, default=3)
    parser.add_argument("--overhead-rounds", type=int, default=5)
    parser.add_argument("--trainings", default="digits,tiny,wide")
    parser.add_argument("--only", choices=("stall", "overhead"))
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--json", help="also write the figures here")
    parser.add_argument("options", nargs="*", help="options of resilient-run, after --")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="resilient-bench-", dir=options.folder))
    results: dict[str, Any] = {"cores": os.cpu_count(), "stall": [], "overhead": []}
    try:
        for size_mb in map(int, options.sizes.split(",")) if options.only != "overhead" else ():
            found = stall(size_mb, folder, options.rounds, options.stock_rounds)
            results["stall"].append({**found, "load": os.getloadavg()})
            print(stall_table(found), flush=True)
        for kind in options.trainings.split(",") if options.only != "stall" else ():
            found = overhead(kind, options.overhead_rounds, options.options, folder)
            results["overhead"].append({**found, "load": os.getloadavg()})
            print(overhead_table(found), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
