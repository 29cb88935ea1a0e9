"""A training as it is before Resilient: stock.py KIND EPOCHS FOLDER [stock].

With ``stock`` it saves with MindSpore's own ModelCheckpoint, into FOLDER/stock, and ends in the second epoch
(KIND tail: at its end). Without, it trains all EPOCHS. The last line is a hash of parameters and optimizer.
"""

import hashlib
import sys
from pathlib import Path

import lean  # noqa: F401
import mindspore as ms
import numpy as np
from mindspore import dataset as ds
from mindspore import nn
from mindspore.train import Accuracy, Callback, CheckpointConfig, Model, ModelCheckpoint

KIND, EPOCHS, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
STOCK = sys.argv[4:] == ["stock"]
STEPS_PER_EPOCH = 7
KEY = b"0123456789abcdef0123456789abcdef"

# What is shuffled is shuffled by seeds of the script's own: stock saves no random streams.
ms.set_seed(4)


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.first = nn.Dense(12, 16)
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Dense(16, 4)

    def construct(self, x):
        return self.second(ms.ops.relu(self.norm(self.first(x))))


class StopAt(Callback):
    """Ends the training at a step, as somebody's Ctrl-C would."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == self.step:
            run_context.request_stop()


def dataset(shuffle=True):
    generator = np.random.default_rng(5)
    images = generator.standard_normal((STEPS_PER_EPOCH * 8, 12)).astype(np.float32)
    labels = generator.integers(0, 4, len(images)).astype(np.int32)
    rows = ds.NumpySlicesDataset((images, labels), ["x", "y"], shuffle=shuffle)
    return rows.batch(8)


network = Network()
rate = nn.cosine_decay_lr(1e-4, 1e-2, STEPS_PER_EPOCH * EPOCHS, STEPS_PER_EPOCH, EPOCHS)
if KIND == "momentum":
    optimizer = nn.Momentum(network.trainable_params(), rate, 0.9)
else:
    optimizer = nn.Adam(network.trainable_params(), rate)
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
model = Model(network, loss, optimizer, metrics={"accuracy": Accuracy()})
callbacks = []
if STOCK:
    key = {"enc_key": KEY, "enc_mode": "AES-CBC"} if KIND == "encrypted" else {}
    info = ["epoch_num", "step_num", {"batch": 8, "note": "a text", "decay": 0.5}]
    config = CheckpointConfig(save_checkpoint_steps=1, keep_checkpoint_max=2, append_info=info, **key)
    stock = ModelCheckpoint(directory=str(FOLDER / "stock"), config=config)
    callbacks = [stock, StopAt(2 * STEPS_PER_EPOCH if KIND == "tail" else STEPS_PER_EPOCH + 3)]
if KIND == "fit":
    model.fit(EPOCHS, dataset(), dataset(shuffle=False), callbacks=callbacks)
else:
    model.train(EPOCHS, dataset(), callbacks=callbacks)

digest = hashlib.sha256()
for parameter in sorted(model.train_network.get_parameters(), key=lambda p: p.name):
    digest.update(parameter.name.encode() + parameter.asnumpy().tobytes())
print("result", digest.hexdigest())
