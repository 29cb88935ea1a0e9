"""A training in a plain process that meets one kind of trouble: trouble.py KIND.

Prints ``finished`` and the steps whose checkpoints stock can load, when it comes to its end.
"""

import os
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import psutil
from mindspore.train import OnRequestExit
from small import At, dataset, files, loaded, model

from resilient import CheckpointMonitor
from resilient.worker.session.session import current

KIND = sys.argv[1]


def limit(size_bytes):
    """From now on no file of ours or our children's may become larger: to a writer it is like a full disk."""

    def action():
        for pid in (os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))

    return action


def settle():
    """Waits until what was handed to a thread or a process has been dealt with."""
    current().saver(monitor.settings).wait()


def stop(number=signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


def mine(number, frame):
    print("my own handler", flush=True)


more = {"save_checkpoint_steps": 4, "keep_checkpoint_max": 9, "directory": "out"}
actions = []
if KIND.startswith("full"):
    more["async_save"] = {"full": False, "full_thread": "thread", "full_process": "process"}[KIND]
    actions = [At(step, settle) for step in (5, 9, 13)]
    actions += [At(6, limit(200)), At(10, limit(resource.RLIM_INFINITY))]
elif KIND == "stopped":
    more.update(exception_save=True, save_checkpoint_steps=100)
    actions = [At(10, stop())]
elif KIND == "handled":
    more.update(exception_save=True, save_checkpoint_steps=100)
    signal.signal(signal.SIGTERM, mine)
    actions = [At(10, stop())]
elif KIND == "ignored":
    more.update(exception_save=True, save_checkpoint_steps=100)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    actions = [At(10, stop(signal.SIGHUP))]
elif KIND == "request":
    more.update(exception_save=True, save_checkpoint_steps=100)
    actions = [OnRequestExit(save_ckpt=False, save_mindir=False, file_name="own"), At(10, stop())]

monitor = CheckpointMonitor(**more)
model().train(2, dataset(), callbacks=[monitor, *actions], dataset_sink_mode=False)
folder = "out/checkpoint/rank_0"
print("finished", *sorted(int(loaded(f"{folder}/{name}")["step_num"]) for name in files(folder)))
