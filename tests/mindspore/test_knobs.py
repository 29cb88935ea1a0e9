"""Hyperparameters and epochs that the script gives otherwise than when the run began."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.experimental import optim

from resilient.errors import MismatchError
from resilient.state import capture
from resilient.state.knobs import Knobs
from resilient.state.resume import restore_network
from resilient.state.snapshot import TensorValue

PROGRAM = Path(__file__).parent / "programs" / "knobs.py"

pytestmark = pytest.mark.mindspore


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("knobs_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# One state, put into what the script gives now


def state_of(cells):
    return {
        p.name: TensorValue(
            str(p.dtype), tuple(p.shape), memoryview(capture.as_bytes(capture.values(p)).tobytes())
        )
        for p in capture.parameters(cells)
    }


def resumed(before, now, *, trained=lambda optimizer: None, **how):
    """The words, and the optimizer, where a run that began with ``before`` is resumed with ``now``."""
    said = []

    def make(optimizer):
        network = nn.Dense(2, 1)
        return [network, optimizer(network.trainable_params())]

    first, second = make(before), make(now)
    began = Knobs()
    began.read(0, first)
    trained(first[1])
    document = json.loads(json.dumps({"knobs": began.given}))
    knobs = Knobs(tell=said.append, **how)
    knobs.resume(document)
    knobs.read(0, second)
    restore_network(second, state_of(first), knobs.settle(0, state_of(first)))
    knobs.restored()
    # The next attempt finds in its states what is said from now on.
    document["knobs"] = knobs.given
    return said, second[1], document


def adam(**arguments):
    return lambda params: nn.Adam(params, **{"learning_rate": 0.01, **arguments})


def grouped(rate, decay):
    return lambda params: nn.AdamWeightDecay(
        [{"params": params[:1], "lr": rate, "weight_decay": decay}, {"params": params[1:]}], 0.01
    )


def cosine(steps):
    return lambda params: nn.SGD(params, nn.CosineDecayLR(0.0, 0.1, steps), momentum=0.9)


def listed(*rates):
    return lambda params: nn.Momentum(params, list(rates), 0.9)


def experimental(**arguments):
    return lambda params: optim.Adam(params, **arguments)


@pytest.mark.parametrize(
    ("before", "now", "name", "values"),
    [
        (adam(), adam(learning_rate=0.2), "learning_rate", ("0.01", "0.2")),
        (adam(), adam(weight_decay=0.1), "weight_decay", ("0.0", "0.1")),
        (adam(), adam(beta1=0.8), "beta1", ("0.9", "0.8")),
        (adam(), adam(eps=1e-6), "eps", ("1e-08", "1e-06")),
        (adam(), adam(loss_scale=8.0), "loss_scale", ("1.0", "8.0")),
        (adam(), adam(use_nesterov=True), "use_nesterov", ("False", "True")),
        (lambda p: nn.SGD(p, 0.1), lambda p: nn.SGD(p, 0.1, momentum=0.5), "momentum", ("0.0", "0.5")),
        (grouped(0.1, 0.0), grouped(0.3, 0.0), "learning_rate_group_0", ("0.1", "0.3")),
        (grouped(0.1, 0.2), grouped(0.1, 0.4), "weight_decay", ("[0.2, 0.0]", "[0.4, 0.0]")),
        (cosine(30), cosine(50), "learning_rate.decay_steps", ("30", "50")),
        (listed(0.1, 0.2), listed(0.1, 0.3), "learning_rate", ("[0.1, 0.2]", "[0.1, 0.3]")),
        (listed(*[0.1] * 9), listed(0.2, *[0.1] * 8), "learning_rate", ("9 values (0.1", "9 values (0.2")),
        (experimental(lr=0.1), experimental(lr=0.2), "lr of group 0", ("0.1", "0.2")),
        (
            experimental(weight_decay=0.1),
            experimental(weight_decay=0.2),
            "weight_decay of group 0",
            ("0.1", "0.2"),
        ),
    ],
)
def test_one_line_names_what_the_script_gives_otherwise(before, now, name, values):
    """With both values, and which is used; it says nothing of one that is given as it was."""
    (line,), _, _ = resumed(before, now)
    was, is_now = values
    assert line.startswith(f"{name}: the script gives {is_now}")
    assert f"and gave {was}" in line
    assert "is used" in line
    assert resumed(before, before)[0] == []


def test_the_states_value_is_used_and_with_the_option_the_scripts():
    """The script's is taken once: a state that has been made with it holds from then on."""
    for taken in (["lr"], ["learning_rate"], ["momentum", "lr"], ["all"]):
        said, optimizer, document = resumed(adam(), adam(learning_rate=0.2), taken=taken)
        assert optimizer.learning_rate.asnumpy() == np.float32(0.2)
        assert "instead of the state's 0.01" in said[0]
        assert document["knobs"]["0"]["learning_rate"] == pytest.approx(0.2)
    for taken in ([], ["weight_decay"]):
        said, optimizer, document = resumed(adam(), adam(learning_rate=0.2), taken=taken)
        assert optimizer.learning_rate.asnumpy() == np.float32(0.01)
        assert "the state's 0.01 is used; to use the script's: --take-from-script lr" in said[0]
        assert document["knobs"]["0"]["learning_rate"] == 0.01


def test_a_rate_that_the_training_has_changed_is_no_change_of_the_scripts():
    """A schedule that sets the parameter is silent, and stays; the line of a real change has all values."""

    def halve(optimizer):
        optimizer.learning_rate.set_data(ms.Tensor(0.005, ms.float32))

    said, optimizer, _ = resumed(adam(), adam(), trained=halve, taken=["all"])
    assert said == []
    assert optimizer.learning_rate.asnumpy() == np.float32(0.005)
    (line,), _, _ = resumed(adam(), adam(learning_rate=0.2), trained=halve)
    assert "gives 0.2 now, and gave 0.01 when the run began; the state's 0.005 is used" in line


def test_a_schedule_of_another_length_is_refused_named_or_taken():
    """The state's does not fit: an error names the option; with it, or --extend, it follows the script."""
    with pytest.raises(MismatchError) as caught:
        resumed(listed(0.1, 0.2), listed(0.1, 0.2, 0.3))
    assert "[0.1, 0.2, 0.3]" in str(caught.value)
    assert "--take-from-script lr" in str(caught.value.hint)
    for how in ({"taken": ["lr"]}, {"extends": True}):
        (line,), optimizer, _ = resumed(listed(0.1, 0.2), listed(0.1, 0.2, 0.3), **how)
        assert optimizer.learning_rate.learning_rate.shape == (3,)
        assert "the script's [0.1, 0.2, 0.3] is used" in line
    with pytest.raises(MismatchError, match="the network differs"):
        resumed(listed(0.1, 0.2), adam(), taken=["all"])


# Real runs


def run(folder, *words, options=(), status=0):
    ours = ["--run-dir", str(folder / "run"), "--no-encrypt", "--backoff", "0:0", "--mirror-every", "1"]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, *options, str(PROGRAM), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return next(
        (line.split()[1] for line in done.stdout.splitlines() if line.startswith("result ")), ""
    ), said


def test_a_complete_run_is_extended(tmp_path, program):
    """With more epochs it ends as one that had them from the start; a changed rate is named, and not used."""
    assert run(tmp_path, "model", "2", "0.01")[0] == program.by_model(2, 0.01)
    refused = run(tmp_path, "model", "3", "0.5", status=64)[1]
    assert "complete, with another command" in refused
    assert "--extend" in refused
    result, said = run(tmp_path, "model", "3", "0.5", options=["--extend"])
    assert result == program.by_model(3, 0.01)
    assert "learning_rate: the script gives 0.5 now, and gave 0.01 when the run began" in said
    assert "the state's 0.0025 is used" in said
    assert "--extend" in run(tmp_path, "model", "3", "0.5")[1]


def test_a_loop_is_extended_with_the_scripts_rate(tmp_path, program):
    """The rate is taken where the run goes on, and not again by the attempt after a kill."""
    run(tmp_path, "loop", "2", "0.01", str(tmp_path))
    options = ["--extend", "--take-from-script", "lr"]
    result, said = run(tmp_path, "loop", "4", "0.5", str(tmp_path), options=options)
    network, optimizer = program.make(0.01)
    step = program.stepper(network, optimizer)
    batches = program.data().create_tuple_iterator(num_epochs=4)
    for epoch in range(4):
        if epoch == 2:
            ms.ops.assign(optimizer.learning_rate, ms.Tensor(0.5, ms.float32))
        for batch in batches:
            step(*batch)
    assert said.count("the script's 0.5 is used instead of the state's 0.01 (--take-from-script)") == 1
    assert "resumed at step 13" in said
    assert result == program.digest(network)
