"""One training in three calls with two directories, which dies once: places.py CALL DEATH FOLDER.

With DEATH fewer, or none, it is killed, and makes the first call alone, or none, when it is run again. The
last line printed is a hash of the parameters and of the optimizer's state.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from small import At, dataset, model

from resilient import CheckpointMonitor

FATAL_CALL, DEATH, FOLDER = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
EPOCHS, FATAL_STEP = (1, 2, 1), 6
if (FOLDER / "died").exists():
    EPOCHS = EPOCHS[: {"fewer": 1, "none": 0}.get(DEATH, 3)]


def die():
    if DEATH == "never" or (FOLDER / "died").exists():
        return
    (FOLDER / "died").touch()
    if DEATH == "exception":
        raise RuntimeError("a failure of the script's own")
    os.kill(os.getpid(), signal.SIGKILL)


trained = model()
for call, (directory, epochs) in enumerate(zip(("first", "second", "first"), EPOCHS, strict=False)):
    saves = CheckpointMonitor(directory=str(FOLDER / directory), save_checkpoint_steps=4)
    fatal = [At(FATAL_STEP, die)] if call == FATAL_CALL else []
    trained.train(epochs, dataset(), callbacks=[saves, *fatal])

digest = hashlib.sha256()
for parameter in trained.train_network.get_parameters():
    digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest())
