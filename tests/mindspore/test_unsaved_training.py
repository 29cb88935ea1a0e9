"""A training that we cannot save is not passed over in silence."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.mindspore

# The loop of MindSpore's beginner's tutorial: no Model, and nothing of ours.
TUTORIAL = """
import os
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
print("trained", flush=True)
os._exit(3)  # the script comes to no end of ours
"""

# Two trainings that are seen, and one in another interpreter.
CHILD = """
import multiprocessing

def train(way):
    import mindspore as ms
    import numpy as np
    from mindspore import dataset, nn
    from mindspore.train import Model
    import resilient
    network = nn.Dense(4, 1)
    optimizer = nn.SGD(network.trainable_params(), 1e-2)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.MSELoss()), optimizer)
    x, y = np.ones((4, 4), np.float32), np.ones((4, 1), np.float32)
    if way == "loop":
        with resilient.training(network, optimizer) as run:
            for _ in run.steps([1, 2]):
                step(ms.Tensor(x), ms.Tensor(y))
    else:
        Model(network, nn.MSELoss(), optimizer).train(1, dataset.NumpySlicesDataset((x, y)).batch(2))

if __name__ == "__main__":
    train("model")
    train("loop")
    print("seen", flush=True)
    child = multiprocessing.get_context("spawn").Process(target=train, args=("model",))
    child.start()
    child.join()
    print("child", child.pid, child.exitcode, flush=True)
"""


# Something is in the way of a file of the run.
REFUSED = """
import mindspore as ms
from mindspore import nn
import resilient
network = nn.Dense(4, 1)
with resilient.training(network, nn.SGD(network.trainable_params(), 1e-2)):
    print("begun")
"""


def run(folder, script, *options):
    (folder / "script.py").write_text(script)
    ours = ["--no-encrypt", "--max-restarts", "0", *options]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, "script.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_child_that_trains_by_itself_is_named(tmp_path):
    """When it begins, with its number; nothing is said of a model and of a loop that are seen."""
    done = run(tmp_path, CHILD)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NOTHING IS SAVED") == 1
    pid, code = done.stdout.split("child ")[1].split()
    assert code == "0"
    assert f"NOTHING IS SAVED of the training that begins now in process {pid}" in done.stderr


@pytest.mark.parametrize(("script", "warned"), [(TUTORIAL, True), ("import mindspore\n", False)])
def test_a_loop_that_nobody_sees_is_named(tmp_path, script, warned):
    """A loop without Model and without resilient.training runs as ever; a warning comes when it begins."""
    done = run(tmp_path, script)
    assert done.returncode == (3 if warned else 0), done.stderr
    assert ("trained" in done.stdout) == warned
    assert (done.stderr.count("NOTHING IS SAVED") == 1) == warned
    assert ("resilient.training(network, optimizer)" in done.stderr) == warned


def test_a_training_that_is_refused_is_none_that_nobody_sees(tmp_path):
    """One line says what is in the way; none says that the script should use resilient.training."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / ".rank_0.lock").mkdir()
    done = run(tmp_path, REFUSED, "--run-dir", "run")
    assert done.returncode == 64, done.stderr
    assert "move it away" in done.stderr
    assert "NOTHING IS SAVED" not in done.stderr
    assert "begun" not in done.stdout
