"""The doors to the operating system, in one value."""

from __future__ import annotations

from dataclasses import dataclass, field

from resilient.host.clock import Clock, SystemClock
from resilient.host.entropy import Entropy, SystemEntropy
from resilient.host.files import DiskFiles, Files


@dataclass(frozen=True)
class World:
    """Files, clocks and randomness; by default the machine's own."""

    files: Files = field(default_factory=DiskFiles)
    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
