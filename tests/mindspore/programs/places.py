"""One training in three calls with two directories: places.py CALLS DEATHS FOLDER.

A death is in a step of a call: ``1.6``, counted from 0. After the first one it makes only so many CALLS. The
last line printed is a hash of the parameters and of the optimizer's state.
"""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
from deaths import Deaths
from mindspore.train import Callback
from small import dataset, model

from resilient import CheckpointMonitor

FOLDER = Path(sys.argv[3])
EPOCHS = (1, 2, 1)
deaths = Deaths(sys.argv[2], FOLDER)
if any(FOLDER.glob("died_*")):
    EPOCHS = EPOCHS[: int(sys.argv[1])]


class Fatal(Callback):
    """Dies at the end of a step of its call."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def on_train_step_end(self, run_context):
        deaths.at(f"{self.call}.{run_context.original_args().cur_step_num}")


trained = model()
for call, (directory, epochs) in enumerate(zip(("first", "second", "first"), EPOCHS, strict=False)):
    saves = CheckpointMonitor(
        directory=str(FOLDER / directory), save_checkpoint_steps=4, keep_checkpoint_max=20
    )
    trained.train(epochs, dataset(), callbacks=[saves, Fatal(call)])

digest = hashlib.sha256()
for parameter in trained.train_network.get_parameters():
    digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest())
