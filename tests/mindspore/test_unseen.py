"""A training that we cannot save is not passed over in silence."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.mindspore

# The loop of MindSpore's beginner's tutorial: no Model, and nothing of ours.
TUTORIAL = """
import mindspore as ms
import numpy as np
from mindspore import nn
network = nn.Dense(4, 1)
optimizer = nn.SGD(network.trainable_params(), 1e-2)
loss_fn = nn.MSELoss()
def forward(x, y):
    return loss_fn(network(x), y)
step = ms.value_and_grad(forward, None, optimizer.parameters)
for _ in range(3):
    loss, gradients = step(ms.ops.ones((2, 4)), ms.ops.ones((2, 1)))
    optimizer(gradients)
print("trained")
"""


@pytest.mark.parametrize(("script", "warned"), [(TUTORIAL, True), ("import mindspore\n", False)])
def test_a_loop_that_nobody_sees_is_named(tmp_path, script, warned):
    """A loop without Model and without resilient.training runs as ever; its user is told what is missing."""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "supervisor.cli", "--no-encrypt", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("trained" in done.stdout) == warned
    assert (done.stderr.count("NOTHING IS SAVED") == 1) == warned
    assert ("resilient.training(network, optimizer)" in done.stderr) == warned
