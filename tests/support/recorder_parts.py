"""What the real recorder is driven with in ``recorder_world``: values, their copies, a saver, and strikes.

The parameters are three numbers: an update adds one to the first, and later one to the second, so a half-done
step shows; the third is for hooks of the script, which change it where the values are no boundary any more.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

from resilient.saving import slots
from resilient.worker.boundary import keeper, mirror_keeper, recorder

NUMBERS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
_SCRIPT = Path(__file__).with_name("recorder_world.py")
_TRACED = {module.__file__ for module in (recorder, keeper, mirror_keeper)} | {__file__, str(_SCRIPT)}


class StruckError(Exception):
    """An exception of the script's, or of something that our own work needs."""


@dataclass(frozen=True)
class RecorderPlan:
    """What happens to one training: at which lines which signals come, at which places what fails."""

    kind: str = "model"
    mirrored: bool = True
    every: int = 1
    waits: bool = True
    save_steps: int = 2
    best: bool = False
    resumed: bool = False
    resumes_hooks: bool = False
    signals: tuple[tuple[int, int], ...] = ()
    failures: tuple[int, ...] = ()
    full_disk: tuple[int, ...] = ()
    requests: tuple[int, ...] = ()
    cut_at: int = 0
    swallows: bool = False


class Strikes:
    """Counts the lines that run, and the places that can fail, and strikes at those that were chosen."""

    def __init__(self, plan: RecorderPlan) -> None:
        self._signals = dict(plan.signals)
        self._failures = set(plan.failures)
        self._requests = set(plan.requests)
        self.request = lambda: None
        self.lines = 0
        self.places = 0
        self.struck = 0

    def place(self) -> None:
        """Something that may fail is done here."""
        self.places += 1
        if self.places in self._failures:
            self.struck += 1
            raise StruckError

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename not in _TRACED or frame.f_code.co_name.startswith("untraced"):
            return None
        if event == "line":
            self.lines += 1
            if self.lines in self._requests:
                self.request()
            if self.lines in self._signals:
                self.struck += 1
                signal.raise_signal(self._signals[self.lines])
        return self.trace

    @contextlib.contextmanager
    def on(self):
        """While entered, the lines count. An exception out of a trace function ends the tracing."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            yield
        finally:
            sys.settrace(before)


class Tensors:
    """The live values, and copies of them that can be torn."""

    def __init__(self, strikes: Strikes) -> None:
        self.now = [0, 0, 0]
        self._strikes = strikes

    def copy_to(self, targets, blobs=()) -> None:
        for number, target in enumerate(targets):
            if number == 1:
                self._strikes.place()
            target[:] = struct.pack("<q", self.now[number])

    def are_in(self, targets) -> bool:
        return [struct.unpack("<q", bytes(target))[0] for target in targets] == self.now


class PlayedShadow:
    """A second copy in the process's own memory."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.copy = [bytearray(8) for _ in tensors.now]

    def refresh(self, blobs=()) -> None:
        self._tensors.copy_to(self.copy)

    def matches(self) -> bool:
        return self._tensors.are_in(self.copy)

    def values(self):
        return tuple(struct.unpack("<q", bytes(part))[0] for part in self.copy)


class PlayedComposer:
    """Observes boundaries: where they lie, and the counter of the script's callbacks."""

    def __init__(self, world) -> None:
        self._world = world
        self.pipeline_draws: set[str] = set()
        self.metrics = 0, {}

    def demand_savable(self, boundary) -> None:
        pass

    def observe(self, progress, outputs):
        self._world.strikes.place()
        return SimpleNamespace(progress=progress, outputs=outputs)

    def fingerprint(self):
        return {}

    def loss_in(self, outputs):
        return outputs

    def metrics_in(self, results):
        return dict(results)

    def shadow(self):
        return PlayedShadow(self._world.tensors)

    def live(self):
        return self._world.tensors

    def blobs(self, boundary):
        return ()

    def merged(self):
        return {}

    def header(self, boundary):
        extra = json.dumps(asdict(boundary.progress)).encode()
        progress = boundary.progress
        return slots.Header(progress.step, progress.epoch, progress.step_in_epoch, (), extra)

    def snapshot(self, boundary, reason, *, failure, shadow):
        values = tuple(self._world.tensors.now) if shadow is None else shadow.values()
        return SimpleNamespace(progress=boundary.progress, reason=reason, failure=failure, values=values)


class Remote:
    """The saver on the other side of the link: it commits its orders when its answers are read."""

    def __init__(self, world) -> None:
        self._world = world
        self._flying = None
        self._succeeded = True

    def hand_over(self, mirror) -> bool:
        return True

    @property
    def busy(self) -> bool:
        return self._flying is not None

    def ask(self, asked, epoch, apart) -> None:
        assert self._flying is None
        self._flying = asked

    def listen(self) -> bool:
        return True

    def wait(self) -> bool:
        asked = self._flying
        if asked is not None:
            self._succeeded = self._world.untraced_commit(asked)
            asked.mirror.unpin(asked.slot.number)
            self._flying = None
        return self._succeeded

    def wait_while_awake(self) -> bool:
        """This supervisor is never stopped."""
        return self.wait()
