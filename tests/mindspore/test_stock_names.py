"""Stock's ModelCheckpoint in a run that fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.mindspore

SCRIPT = """
import os, signal
import numpy as np
import mindspore as ms
from mindspore import dataset, nn
from mindspore.train import Callback, CheckpointConfig, Model, ModelCheckpoint

os.makedirs("own", exist_ok=True)
open("own/net-9_9.ckpt", "a").close()  # another run's

class Dies(Callback):
    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == 7 and not os.path.exists("died"):
            open("died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

network = nn.Dense(4, 1)
data = dataset.NumpySlicesDataset(np.ones((16, 5), np.float32), ["x"]).map(
    lambda row: (row[:4], row[4:]), ["x"], ["x", "y"]).batch(4)
keep = CheckpointConfig(save_checkpoint_steps=2, keep_checkpoint_max=2)
callbacks = [ModelCheckpoint("net", "own", keep), Dies()]
Model(network, nn.MSELoss(), nn.SGD(network.trainable_params(), 0.01)).train(3, data, callbacks=callbacks)
"""


def test_a_restart_changes_no_name_and_retention_goes_on(tmp_path):
    """The prefix that the first attempt has chosen, beside another run's file, is that of the second too."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ours = ["--no-encrypt", "--backoff", "0:0", "--mirror-every", "1"]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 attempts" in done.stderr
    files = sorted(path.name for path in (tmp_path / "own").glob("*.ckpt"))
    assert len(files) == 3
    assert "net-9_9.ckpt" in files
    assert "net_1-3_4.ckpt" in files
    assert all(name.startswith(("net-9", "net_1-")) for name in files)
