"""Two networks, trained in turn; the process dies while the first one is: two_networks.py DEATH FOLDER.

The last line printed is a hash of both networks and both optimizers.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
from small import At, dataset, model

DEATH, FOLDER = sys.argv[1], Path(sys.argv[2])
EPOCHS, FATAL_EPOCH, FATAL_STEP = 3, 1, 4


def die():
    if DEATH != "never" and not (FOLDER / "died").exists():
        (FOLDER / "died").touch()
        os.kill(os.getpid(), getattr(signal, DEATH))


first, second = model(), model()
batches, others = dataset(), dataset()
for epoch in range(EPOCHS):
    first.train(1, batches, callbacks=[At(FATAL_STEP, die)] if epoch == FATAL_EPOCH else [])
    second.train(1, others)

digest = hashlib.sha256()
for trained in (first, second):
    for parameter in trained.train_network.get_parameters():
        digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest())
