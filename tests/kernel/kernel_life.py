"""A real process that lives a store's daily life, under the shim.

Run as a program it imports everything once and forks for each life, so that a life costs milliseconds and
dies alone. One line of JSON in is one request. The lines out are "stopped PID" whenever the shim has stopped
the life ("go" lets it go on, anything else kills it), and last its exit status, negative for a signal.

The life keeps a diary outside of the folder where things go wrong: one JSON object a line. It is what the
world knows when the life is over; the machine does not really lose its power, so it needs no sync.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from kernel_faults import KernelFault

from chaos.cycle import Cycle
from resilient.codec import cipher
from resilient.errors import StorageError
from resilient.host.world import World
from resilient.store.opening import open_store
from resilient.store.store import Store

RUN_ID = "run-1"


@dataclass(frozen=True)
class RealCycle(Cycle):
    """A cycle whose checkpoints are as large as wanted; of the codec the block's size alone is changed."""

    repeats: int = 1
    block_bytes: int = 128

    def content(self, step: int) -> bytes:
        return super().content(step) * self.repeats

    def open(self, root: Path) -> Store:
        """The store of this cycle below a real folder."""
        cipher.BLOCK_BYTES = self.block_bytes
        return open_store(root, World(), self.sealing, RUN_ID)


CYCLES = {
    # Three saves of small blocks, one of them on a failure; the third makes retention remove the first.
    "small": RealCycle(3, 2, "AES-GCM", failures=frozenset({2})),
    "single": RealCycle(1, 1, "AES-GCM"),
    "long": RealCycle(5, 2, "AES-GCM"),
    "plain": RealCycle(3, 2, failures=frozenset({3})),
    # 2.5 MB in blocks of 1 MiB: these are written behind the caller's back, by a thread.
    "large": RealCycle(2, 1, "AES-GCM", repeats=12_000, block_bytes=1024 * 1024),
}


class LifeDiary:
    """What a life has to tell, as it happens."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, what: str, **more: object) -> None:
        line = json.dumps({"what": what, **more}) + "\n"
        os.write(self._descriptor, line.encode())


def recover(cycle: RealCycle, root: Path, diary: LifeDiary) -> None:
    """What a process does that comes after another one."""
    store = cycle.open(root)
    try:
        for failure in store.recover().failures:
            diary.tell("trouble", text=str(failure))
        _tell_of_meta(store, diary)
        _prune(store, cycle, diary)
    except StorageError as error:
        diary.tell("trouble", text=str(error))


def live(cycle: RealCycle, root: Path, diary: LifeDiary) -> None:
    """All the saves of a cycle with retention after each, and what came of them."""
    store = cycle.open(root)
    for step in cycle.steps:
        try:
            store.commit(cycle.draft(step))
        except StorageError as error:
            diary.tell("failed", step=step, errno=error.errno, text=str(error))
            continue
        diary.tell("saved", step=step)
        _tell_of_meta(store, diary)
        try:
            _prune(store, cycle, diary)
        except StorageError as error:
            diary.tell("trouble", text=str(error))


def _prune(store: Store, cycle: RealCycle, diary: LifeDiary) -> None:
    for failure in cycle.prune(store).failures:
        diary.tell("trouble", text=str(failure))
    _tell_of_meta(store, diary)


def _tell_of_meta(store: Store, diary: LifeDiary) -> None:
    if store.meta_error is not None:
        diary.tell("trouble", text=str(store.meta_error))


def _begin(request: dict) -> None:
    """A life, from its birth to its end; it never returns."""
    diary = LifeDiary(request["diary"])
    status = 1
    try:
        came: list[int] = []
        if request["alarm_s"]:
            # A handler of Python's, and so without SA_RESTART: the kernel interrupts what can be interrupted.
            signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
            signal.setitimer(signal.ITIMER_REAL, request["alarm_s"], request["alarm_s"])
        KernelFault(**request["fault"]).arm(request["root"], request["log"])
        do = {"live": live, "recover": recover}[request["do"]]
        do(CYCLES[request["cycle"]], Path(request["root"]), diary)
        diary.tell("end", signals=len(came))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the test is to see it
        diary.tell("crashed", text=traceback.format_exc())
    finally:
        os._exit(status)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Lets one life after the other be lived."""
    _say("ready")
    for line in sys.stdin:
        life = os.fork()
        if life == 0:
            _begin(json.loads(line))
        status = os.waitpid(life, os.WUNTRACED)[1]
        while os.WIFSTOPPED(status):
            _say(f"stopped {life}")
            goes_on = sys.stdin.readline().strip() == "go"
            os.kill(life, signal.SIGCONT if goes_on else signal.SIGKILL)
            status = os.waitpid(life, os.WUNTRACED)[1]
        _say(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
