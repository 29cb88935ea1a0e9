"""How long a killed training takes to resume, and how much an idle supervisor takes.

    python benchmarks/recovery.py [--kind digits|wide] [--rounds 5] [--idle-steps 12000] [--json FILE]
                                  [--way NAME="OPTIONS OF RESILIENT-RUN"]...

The time runs from the instant of SIGKILL to the first step that is completed after it, and falls into

    death        until the kernel has ended the process: it frees all of its memory first
    detection    until the supervisor's journal says why the worker ended
    start        until the script's first line runs in another process
    import       until it has imported MindSpore
    script       until it has made its data, its network and its optimizer
    load         until the state is read (by hand: read and put into the network)
    step         until the first step is complete: it compiles first

"By hand" is a plain rerun of the script that loads a stock checkpoint; its time counts from its start. The
ways take turns, and each figure is the median over the rounds. --way adds another set of options to compare.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from chaos.victims import Victim, VictimSetup
from resilient.journal.events import AttemptJudged, TrainingResumed

PROGRAM = Path(__file__).parent / "programs" / "timed.py"
WAYS = {
    "memory": "--mirror-every 1",
    "disk": "--no-mirror --save-steps 5",
}
STAGES = ("death", "detection", "start", "import", "script", "load", "step")
KILLED_AFTER = 40


def marks(folder: Path, pid: int) -> dict[str, float]:
    """The instants at which a process reached its stages."""
    path = folder / "marks"
    words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return {name: float(at_s) for mine, name, at_s in words if int(mine) == pid}


def recover(folder: Path, kind: str, options: str) -> dict[str, float]:
    """Kills a supervised training and times each stage of its return."""
    words = ("--quiet", "--backoff", "0:0", *shlex.split(options))
    victim = Victim(folder, VictimSetup(20_26, 1_000_000, ("--kind", kind), words, PROGRAM))
    try:
        victim.start()
        victim.wait_for(lambda: _steps(victim) >= KILLED_AFTER or victim.over, "steps to lose", poll_s=0.01)
        worker = victim.worker()
        killed_s, dead_s = _kill(victim, worker)
        victim.wait_for(lambda: victim.worker() not in (0, worker), "another worker", poll_s=0.01)
        second = victim.worker()
        victim.wait_for(lambda: "stepped" in marks(folder, second), "another step", poll_s=0.01)
        seen = marks(folder, second)
        judged_s = victim.events(AttemptJudged)[0].monotonic
        resumed = victim.events(TrainingResumed)[-1]
    finally:
        victim.clear_away()
    instants = [
        killed_s,
        dead_s,
        judged_s,
        seen["began"],
        seen["imported"],
        seen["built"],
        resumed.monotonic,
    ]
    return _stages([*instants, seen["stepped"]])


def _kill(victim: Victim, worker: int) -> tuple[float, float]:
    """Kills a worker: the instants of the kill and of its death."""
    descriptor = os.pidfd_open(worker)
    killed_s = time.monotonic()
    victim.kill([worker])
    select.select([descriptor], [], [])
    dead_s = time.monotonic()
    os.close(descriptor)
    return killed_s, dead_s


def _steps(victim: Victim) -> int:
    return max((line.step for line in victim.last_lines()), default=0)


def rerun(folder: Path, kind: str, checkpoint: Path) -> dict[str, float]:
    """The same by hand: the script again, from a stock checkpoint."""
    folder.mkdir()
    words = [str(PROGRAM), str(folder), "--kind", kind, "--steps", "40", "--from", str(checkpoint)]
    began_s = time.monotonic()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait() == 0
    seen = marks(folder, process.pid)
    instants = [began_s, began_s, began_s, seen["began"], seen["imported"], seen["built"], seen["loaded"]]
    return _stages([*instants, seen["stepped"]])


def _stages(instants: list[float]) -> dict[str, float]:
    took = [after - before for before, after in itertools.pairwise(instants)]
    return {**dict(zip(STAGES, took, strict=True)), "total": instants[-1] - instants[0]}


def recovery(folder: Path, kind: str, ways: dict[str, str], rounds: int) -> dict[str, Any]:
    """Median seconds of every stage, by way."""
    checkpoint = folder / "stock.ckpt"
    words = [str(PROGRAM), "-", "--kind", kind, "--steps", "40", "--save", str(checkpoint)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in (*ways, "by hand")}
    for number in range(rounds):
        for name, options in ways.items():
            seen[name].append(recover(folder / f"{name}-{number}", kind, options))
        seen["by hand"].append(rerun(folder / f"by-hand-{number}", kind, checkpoint))
    medians = {
        name: {stage: statistics.median(times[stage] for times in found) for stage in (*STAGES, "total")}
        for name, found in seen.items()
    }
    return {"kind": kind, "ways": ways, "seconds": medians, "rounds": seen, "load": os.getloadavg()}


def recovery_table(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [f"\n{result['kind']}: seconds from the kill to the first new step\n"]
    lines += ["| | " + " | ".join((*STAGES, "total")) + " |", "|---" * (len(STAGES) + 2) + "|"]
    for name, times in result["seconds"].items():
        cells = [f"{times[stage]:.3f}" for stage in (*STAGES, "total")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# The cost while nothing happens


def idle(folder: Path, steps: int) -> dict[str, Any]:
    """CPU share and memory of the supervisor and the saver over so many undisturbed steps."""
    # The smallest network: its steps are the fastest, and the supervisor never sees their values.
    victim = Victim(folder, VictimSetup(20_26, steps, (), ("--save-steps", "1000")))
    try:
        victim.start()
        victim.wait_for(lambda: _steps(victim) >= 1500 or victim.over, "the first steps", poll_s=0.05)
        watched = {"supervisor": victim.supervisor(), "saver": victim.saver()}
        processes = {name: psutil.Process(pid) for name, pid in watched.items()}
        before, began_s, first = _usage(processes), time.monotonic(), _steps(victim)
        victim.wait_for(lambda: _steps(victim) >= steps - 500 or victim.over, "the last steps", poll_s=0.05)
        after, took_s, last = _usage(processes), time.monotonic() - began_s, _steps(victim)
    finally:
        victim.clear_away()
    found = {
        name: {
            "cpu_share": (after[name][0] - before[name][0]) / took_s,
            "rss_mb": after[name][1] / 1e6,
            "growth_mb": (after[name][1] - before[name][1]) / 1e6,
        }
        for name in processes
    }
    return {"steps": last - first, "seconds": took_s, "processes": found, "load": os.getloadavg()}


def _usage(processes: dict[str, psutil.Process]) -> dict[str, tuple[float, int]]:
    usage = {}
    for name, process in processes.items():
        times = process.cpu_times()
        usage[name] = times.user + times.system, process.memory_info().rss
    return usage


def idle_table(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [f"\n{result['steps']} steps in {result['seconds']:.0f} s, a checkpoint every 1000\n"]
    lines += ["| | CPU, % of a core | memory, MB | growth, MB |", "|---|---|---|---|"]
    for name, found in result["processes"].items():
        share, rss, growth = 100 * found["cpu_share"], found["rss_mb"], found["growth_mb"]
        lines.append(f"| {name} | {share:.2f} | {rss:.1f} | {growth:+.2f} |")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmarks and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("digits", "wide"), default="digits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-steps", type=int, default=12_000, help="0 leaves that part out")
    parser.add_argument("--way", action="append", default=[], help='NAME="OPTIONS"; repeatable')
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    os.environ.setdefault("GLOG_v", "3")
    ways = {**WAYS, **dict(way.split("=", 1) for way in options.way)}
    folder = Path(tempfile.mkdtemp(prefix="resilient-bench-", dir=options.folder))
    results: dict[str, Any] = {"cores": os.cpu_count()}
    try:
        if options.rounds:
            results["recovery"] = recovery(folder, options.kind, ways, options.rounds)
            print(recovery_table(results["recovery"]), flush=True)
        if options.idle_steps:
            results["idle"] = idle(folder / "idle", options.idle_steps)
            print(idle_table(results["idle"]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
