"""A resumed script uses a network before it has come to the call that it resumes: what it holds is right in
the end, and the weights of another step are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mindspore as ms
import pytest
from mindspore import nn
from mindspore.train import serialization
from small import SmallNetwork

from resilient.worker.call.early_use import EarlyUse

PROGRAM = Path(__file__).parent / "programs" / "rounds.py"

pytestmark = pytest.mark.mindspore


def result_of(folder, *before, death):
    """The result line, and everything that was said."""
    command = [sys.executable, *before, str(PROGRAM), str(death)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return next(line for line in done.stdout.splitlines() if line.startswith("result ")), said


def test_what_is_held_is_right_and_the_evaluation_of_a_later_step_is_named(tmp_path):
    """Killed in the fifth of five loops. The four before it are passed by, and the code behind each of them
    runs: the history that was given, and the schedule that stands around the loop's function and follows the
    evaluation, end as those of plain python; one line names the evaluation and says what to do, another one
    the counter that the loop replaces, and neither comes before the restart.
    """
    (tmp_path / "plain").mkdir()
    wanted, _ = result_of(tmp_path / "plain", death=0)
    ours = ["--run-dir", "run", "--no-encrypt", "--backoff", "0:0", "--mirror-every", "1"]
    found, said = result_of(tmp_path, "-m", "supervisor.command.cli", *ours, death=14)
    assert found == wanted, said
    assert said.count("the script uses a trained network (Dense)") == 1, said
    assert "the weights of step 13" in said
    assert "run.steps(dataset, epochs=N)" in said
    assert said.count("the loop changes rounds at each round, and no checkpoint has the values") == 1, said
    assert said.index("attempt 2 started") < said.index("the loop changes rounds")


@pytest.fixture
def told():
    """What an onlooker says; MindSpore is as it was behind each test."""
    return []


@pytest.fixture
def remarked():
    """What it says of files that stay."""
    return []


@pytest.fixture
def early(told, remarked):
    looking = EarlyUse(told.append, remarked.append)
    yield looking
    looking.end()


def untouched():
    return nn.Cell.__call__, serialization._check_save_obj_and_ckpt_file_name, serialization._exec_save


def test_a_call_of_a_trained_cell_is_told_once(early, told):
    """By itself, or inside of another cell; behind the end MindSpore is as it was."""
    before, network = untouched(), SmallNetwork()
    evaluation = nn.WithEvalCell(network, nn.SoftmaxCrossEntropyWithLogits(sparse=True))
    early.begin([network], 7)
    assert untouched() != before
    rows, labels = ms.ops.ones((2, 4)), ms.ops.ones((2,), ms.int32)
    nn.ReLU()(rows)
    SmallNetwork()(rows)
    assert not told
    evaluation(rows, labels)
    network(rows)
    assert len(told) == 1
    assert "network (WithEvalCell)" in told[0]
    assert "step 7" in told[0]
    assert "use it before `with resilient.training(...)`" in told[0]
    early.end()
    assert untouched() == before


def as_given(network, way):
    """A network in one of the ways in which save_checkpoint takes it."""
    if way == "cell":
        return network
    if way == "dict":
        return network.parameters_dict()
    value = {"list": lambda p: p, "copies": lambda p: ms.Tensor(p.asnumpy())}[way]
    return [{"name": p.name, "data": value(p)} for p in network.get_parameters()]


WAYS = pytest.mark.parametrize("way", ["cell", "dict", "list", "copies"])


@WAYS
def test_a_file_of_a_trained_cell_is_told_where_there_is_none(early, told, remarked, tmp_path, way):
    """In each way in which save_checkpoint takes it; the file is written."""
    network, file = SmallNetwork(), tmp_path / "best.ckpt"
    early.passes_by = True
    early.begin([network], 7)
    ms.save_checkpoint(SmallNetwork(), str(file))
    assert not told
    file.unlink()
    ms.save_checkpoint(as_given(network, way), str(file))
    assert len(told) == 1
    assert "make the rounds one loop" in told[0]
    assert not remarked
    assert file.exists()


@WAYS
@pytest.mark.parametrize("how", [{}, {"async_save": True}, {"async_save": "process"}, {"ending": ""}])
def test_a_file_that_an_earlier_attempt_wrote_stays(early, told, remarked, tmp_path, way, how):
    """With the weights of its round, saved in whatever way, again and again; one line says so. A file of
    something else is written, and behind the begin of the resumed call each file is.
    """
    options = dict(how)
    network, file, other = SmallNetwork(), tmp_path / "best.ckpt", tmp_path / "other.ckpt"
    name = str(tmp_path / f"best{options.pop('ending', '.ckpt')}")
    file.write_bytes(b"of its round")
    other.write_bytes(b"old")
    early.begin([network], 7)
    for _ in range(2):
        ms.save_checkpoint(as_given(network, way), ckpt_file_name=name, **options)
    ms.save_checkpoint([{"name": "count", "data": ms.Tensor(3)}], str(other))
    wait_for_savers()
    assert file.read_bytes() == b"of its round"
    assert other.read_bytes() != b"old"
    assert not told
    (sentence,) = remarked
    assert "best.ckpt stays as an earlier attempt wrote it" in sentence
    early.end()
    ms.save_checkpoint(as_given(network, way), name, **options)
    wait_for_savers()
    assert ms.load_checkpoint(str(file)).keys() == {p.name for p in network.get_parameters()}


def wait_for_savers():
    serialization._wait_async_thread_save_ckpt()
    serialization._wait_async_process_save_ckpt()


def test_an_exported_model_of_an_earlier_attempt_stays_too(early, told, remarked, tmp_path):
    """One that does not exist is written, and named."""
    network, file = SmallNetwork(), tmp_path / "net.mindir"
    rows = ms.ops.ones((2, 4))
    early.begin([network], 7)
    file.write_bytes(b"of its round")
    ms.export(network, rows, file_name=str(tmp_path / "net"), file_format="MINDIR")
    assert file.read_bytes() == b"of its round"
    assert len(remarked) == 1
    assert not told
    ms.export(network, rows, file_name=str(tmp_path / "new"), file_format="MINDIR")
    assert (tmp_path / "new.mindir").exists()
    assert len(told) == 1


def test_behind_the_begin_of_the_resumed_call_nothing_is_told(early, told):
    """There the script sees what it saw then."""
    before, network = untouched(), SmallNetwork()
    early.begin([network], 7)
    early.end()
    network(ms.ops.ones((2, 4)))
    assert not told
    assert untouched() == before
