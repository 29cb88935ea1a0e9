"""A control group with a memory limit: who takes more is killed by the kernel.

Sources: the kernel's documentation of cgroup v1 (memory.txt) and v2 (cgroup-v2.rst).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from resilient.host.entropy import SystemEntropy

_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A group of this limit, without a process in it; it is removed in the end.

    Raises OSError where groups cannot be made: without the rights, or without the controller.
    """
    old = (_ROOT / "memory" / "memory.limit_in_bytes").exists()
    group = (_ROOT / "memory" if old else _ROOT) / f"resilient-{SystemEntropy().token(4).hex()}"
    group.mkdir()
    try:
        if old:
            (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        else:
            (group / "memory.max").write_text(str(limit_bytes))
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        group.rmdir()


def out_of_memory_kills(group: Path) -> int:
    """How often the kernel has killed somebody of this group for want of memory."""
    old = group / "memory.oom_control"
    text = (old if old.exists() else group / "memory.events").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))
