"""A training on a thread of its own, while the main thread has left the script: threaded.py daemon|waits.

It fails once, in step 11 of 16. A daemon is left behind in its first step.
"""

import sys
import threading
from pathlib import Path

import mindspore as ms
from small import At, dataset, model

ms.set_seed(1)
is_daemon = sys.argv[1] == "daemon"
mark, inside = Path("died"), threading.Event()


def fail():
    if not mark.exists():
        mark.touch()
        raise RuntimeError("on a thread")


def stay():
    inside.set()
    threading.Event().wait()


def train():
    model().train(2, dataset(), callbacks=[At(1, stay) if is_daemon else At(11, fail)])
    print("trained", flush=True)


threading.Thread(target=train, daemon=is_daemon).start()
if is_daemon:
    inside.wait()
