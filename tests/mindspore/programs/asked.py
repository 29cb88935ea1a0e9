"""A small training that is sent signals, by itself, under a supervisor: asked.py WHAT.

save      asks for a checkpoint in a callback of step 3 and, when there is nothing new, at an epoch's end
outside   asks for one before the import, before the training and after it
handled   has a handler of its own for the same signal
stacks    asks for stacks out of a loop in C that holds the interpreter's lock
caught    has a handler of its own for SIGQUIT
fault     reads address 0
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SAVE = signal.SIGRTMIN + 3
WHAT = sys.argv[1]


def send(number):
    os.kill(os.getpid(), number)


def mine(number, frame):
    print("my own handler", flush=True)


if WHAT == "outside":
    send(SAVE)
if WHAT == "handled":
    signal.signal(SAVE, mine)
if WHAT == "caught":
    signal.signal(signal.SIGQUIT, mine)

sys.path.insert(0, str(Path(__file__).parent.parent))

from mindspore.train import Callback  # noqa: E402
from small import dataset, model  # noqa: E402


def hold_the_lock():
    """Sleeps in C without giving the lock back; another process sends the signal meanwhile."""
    subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -QUIT {os.getpid()}"])
    ctypes.PyDLL(None).sleep(2)


class Hooks(Callback):
    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == 3:
            self.act()

    def act(self):
        if WHAT in ("save", "handled"):
            send(SAVE)
        elif WHAT == "stacks":
            hold_the_lock()
        elif WHAT == "caught":
            send(signal.SIGQUIT)
        elif WHAT == "fault":
            ctypes.string_at(0)

    def on_train_epoch_end(self, run_context):
        if WHAT == "save":
            send(SAVE)


if WHAT == "stacks":
    threading.Thread(target=threading.Event().wait, name="another", daemon=True).start()
if WHAT == "outside":
    send(SAVE)
model().train(2, dataset(), callbacks=[Hooks()])
if WHAT == "outside":
    send(SAVE)
print("came to its end")
