"""Processes that a script starts with ``multiprocessing``, by "spawn" or "forkserver".

Such a child is a new interpreter, which nothing of ours is in. One that trains would begin from zero after
each restart, without a word. So ``multiprocessing`` sends each child a few words more before anything else.
They have the child look out for training of its own, and say on its stderr, which is the run's, that nothing
is saved. A child that cannot import us runs as it would without them. (A forked child has us already.)
"""

from __future__ import annotations

import os
import sys
from typing import Any

NOTHING_IS_SAVED = (
    "NOTHING IS SAVED of the training that begins now in process {pid}, which the script has started: only "
    "the script's own process is watched, and after a failure this training begins anew; train in the "
    "script's own process, or start each training with a resilient-run of its own"
)

_WORDS = """
try:
    from resilient import children as _resilient_children
    _resilient_children.look_out()
except Exception:
    pass
"""


class _Order:
    """Runs the words above where it is unpickled, with nothing but what every interpreter has."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_WORDS, {})


def install(spawn: Any) -> None:
    """Has the children that ``multiprocessing.spawn`` starts look out for training of their own."""
    original = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**original(name), "resilient": _Order()}

    spawn.get_preparation_data = get_preparation_data


def look_out() -> None:
    """In a child: tells when it begins to train. A child of its own does the same."""
    from resilient.attach import when_imported

    install(sys.modules["multiprocessing.spawn"])
    when_imported("mindspore", _watch)


def _watch(mindspore: Any) -> None:
    from resilient.unseen import Unseen

    def tell() -> None:
        print(f"resilient: warning: {NOTHING_IS_SAVED.format(pid=os.getpid())}", file=sys.stderr, flush=True)

    Unseen(tell, lambda: False).install()
