"""CheckpointMonitor in a plain process: which files it writes, and what is in them."""

from __future__ import annotations

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor
from mindspore.train import CheckpointConfig
from small import At, SmallNetwork, assert_equal, dataset, files, loaded, meta, model, raising, values

from chaos.stepped_clock import SteppedClock
from resilient import CheckpointMonitor
from resilient.host.world import World

pytestmark = [pytest.mark.mindspore, pytest.mark.usefixtures("plain")]

CHECKPOINTS = "out/checkpoint/rank_0"
NETWORKS = "out/checkpoint_network/rank_0"
TRAINABLE = "out/checkpoint_trainable/rank_0"
KEY = b"0123456789abcdef0123456789abcdef"


def monitor(**more):
    return CheckpointMonitor(**{"directory": "out", "save_checkpoint_steps": 4, **more})


def train(epochs=2, network=None, callbacks=(), **more):
    trained = model(network)
    trained.train(epochs, dataset(), callbacks=[monitor(**more), *callbacks], dataset_sink_mode=False)
    return trained


def test_the_layout_is_upstreams():
    """Folders, names, counters and meta.json are those the real class was seen to write."""
    train(save_checkpoint_steps=3, keep_checkpoint_max=2, save_trainable_params=True)
    # Steps 15 and 16: the last multiple of three, and the end of the training.
    assert files(CHECKPOINTS) == ["CKP_rank_0-2_7.ckpt", "CKP_rank_0-2_8.ckpt"]
    assert files(NETWORKS) == ["CKP_rank_0-network-2_7.ckpt", "CKP_rank_0-network-2_8.ckpt"]
    assert files(TRAINABLE) == [
        "CKP_rank_0-trainable_params-2_7.ckpt",
        "CKP_rank_0-trainable_params-2_8.ckpt",
    ]
    assert meta(CHECKPOINTS) == {"last_epoch": 2, "last_step": 8, "last_ckpt_file": "CKP_rank_0-2_8.ckpt"}


def test_initial_epoch_says_what_lies_behind():
    """A script that goes on by itself from the third epoch has the fourth one's names and counters."""
    trained = model()
    trained.train(5, dataset(), callbacks=[monitor(save_checkpoint_steps=8)], initial_epoch=3)
    assert files(CHECKPOINTS) == ["CKP_rank_0-4_8.ckpt", "CKP_rank_0-5_8.ckpt"]
    assert meta(CHECKPOINTS)["last_epoch"] == 5
    assert int(loaded(f"{CHECKPOINTS}/CKP_rank_0-4_8.ckpt")["epoch_num"].reshape(-1)[0]) == 4


def test_the_entries_are_right_over_the_whole_run():
    """epoch_num, step_num, global_step and global_batch_size, in every file, in the second epoch too."""
    train(save_checkpoint_steps=3, keep_checkpoint_max=9, global_batch_size=64)
    found = {}
    for name in files(CHECKPOINTS):
        entries = loaded(f"{CHECKPOINTS}/{name}")
        found[name] = tuple(
            int(entries[key].reshape(-1)[0])
            for key in ("epoch_num", "step_num", "global_step", "global_batch_size")
        )
        assert entries["loss_scale"] == 1.0
    assert found == {
        "CKP_rank_0-1_3.ckpt": (1, 3, 3, 64),
        "CKP_rank_0-1_6.ckpt": (1, 6, 6, 64),
        "CKP_rank_0-2_1.ckpt": (2, 9, 9, 64),
        "CKP_rank_0-2_4.ckpt": (2, 12, 12, 64),
        "CKP_rank_0-2_7.ckpt": (2, 15, 15, 64),
        "CKP_rank_0-2_8.ckpt": (2, 16, 16, 64),
    }


@pytest.mark.parametrize(
    ("mode", "length"),
    [
        (None, 0),
        *(("AES-GCM", n) for n in (16, 24, 32)),
        *(("AES-CBC", n) for n in (16, 24, 32)),
        ("SM4-CBC", 16),
    ],
)
def test_stock_opens_every_file(mode, length):
    """Every parameter and optimizer state, bit for bit, in each mode with each key it takes, and plain."""
    sealed = {} if mode is None else {"enc_key": KEY[:length], "enc_mode": mode}
    key = {} if mode is None else {"dec_key": KEY[:length], "dec_mode": mode}
    trained = train(1, save_trainable_params=True, **sealed)
    assert_equal(loaded(f"{CHECKPOINTS}/CKP_rank_0-1_8.ckpt", **key), values(trained.train_network))
    network = values(trained.predict_network)
    for path in (
        f"{NETWORKS}/CKP_rank_0-network-1_8.ckpt",
        f"{TRAINABLE}/CKP_rank_0-trainable_params-1_8.ckpt",
    ):
        found = loaded(path, **key)
        assert set(found) == set(network)
        assert_equal(found, network)
        if mode is not None:
            with pytest.raises(ValueError, match="Failed to read"):
                ms.load_checkpoint(path)


def test_trainable_files_hold_what_is_trained():
    """A frozen layer is in the network's file and not in that of the trainable parameters."""
    train(1, SmallNetwork(frozen=True), save_network_params=True, save_trainable_params=True)
    network = loaded(f"{NETWORKS}/CKP_rank_0-network-1_8.ckpt")
    trainable = loaded(f"{TRAINABLE}/CKP_rank_0-trainable_params-1_8.ckpt")
    assert set(network) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert set(trainable) == {"second.weight", "second.bias"}


def test_append_info_comes_back_by_stock():
    """Every type that upstream takes; epoch_num and step_num in the dict are offsets."""
    info = {
        "number": 7,
        "rate": 0.25,
        "flag": True,
        "note": "über",
        "parameter": Parameter(Tensor(np.arange(3, dtype=np.int32)), name="p"),
        "tensor": Tensor(np.ones((2, 2), np.float16)),
        "epoch_num": 10,
        "step_num": 100,
    }
    train(1, append_info=["epoch_num", "step_num", info])
    found = ms.load_checkpoint(f"{CHECKPOINTS}/CKP_rank_0-1_8.ckpt")
    assert (found["number"].asnumpy(), found["rate"].asnumpy()) == (7, 0.25)
    assert found["flag"].asnumpy()
    assert found["note"] == "über"
    assert found["parameter"].asnumpy().tolist() == [0, 1, 2]
    assert found["tensor"].dtype == ms.float16
    assert (found["epoch_num"].asnumpy(), found["step_num"].asnumpy()) == (11, 108)


@pytest.mark.parametrize("how", [False, True, "thread", "process"])
def test_train_returns_when_everything_is_durable(how):
    """However it is saved, the last state is in a committed file when ``train`` returns."""
    trained = train(2, async_save=how, enc_key=KEY)
    names = files(CHECKPOINTS)
    assert names[-1] == "CKP_rank_0-2_8.ckpt"
    assert [n.replace(".ckpt", ".manifest") for n in names] == files(CHECKPOINTS, "*.manifest")
    assert meta(CHECKPOINTS)["last_ckpt_file"] == names[-1]
    found = loaded(f"{CHECKPOINTS}/{names[-1]}", dec_key=KEY, dec_mode="AES-GCM")
    assert_equal(found, values(trained.train_network))


@pytest.mark.parametrize("how", [False, True, "process"])
def test_each_file_holds_its_own_step(how):
    """A checkpoint holds the state of its step, although training goes on while it is written."""
    seen = {}
    network = SmallNetwork()
    callbacks = [At(n, lambda n=n: seen.update({n: values(network)})) for n in (4, 8, 12)]
    trained = train(2, network, callbacks, async_save=how, keep_checkpoint_max=9)
    seen[16] = values(trained.predict_network)
    names = {"CKP_rank_0-1_4": 4, "CKP_rank_0-1_8": 8, "CKP_rank_0-2_4": 12, "CKP_rank_0-2_8": 16}
    found = [name for name in files(CHECKPOINTS) if name.removesuffix(".ckpt") in names]
    assert (len(found) == len(names)) if how is False else "CKP_rank_0-2_8.ckpt" in found
    for name in found:
        assert_equal(loaded(f"{CHECKPOINTS}/{name}"), seen[names[name.removesuffix(".ckpt")]])


def test_saved_network_is_what_stock_finds():
    """Another network than the trained one: stock finds its initial values."""
    other = SmallNetwork()
    initial = values(other)
    train(1, saved_network=other)
    found = loaded(f"{CHECKPOINTS}/CKP_rank_0-1_8.ckpt")
    assert_equal(found, initial)
    assert not any("moment" in name for name in found)


@pytest.mark.parametrize("fatal", [1, 11])
def test_a_failure_is_saved_and_goes_on_unchanged(fatal):
    """The failed run's last completed step, rightly counted; meta.json names it; the error is the user's."""
    mine = RuntimeError("my own")
    trained = model()
    with pytest.raises(RuntimeError) as caught:
        trained.train(
            2,
            dataset(),
            callbacks=[monitor(save_checkpoint_steps=50, exception_save=True), At(fatal, raising(mine))],
            dataset_sink_mode=False,
        )
    assert caught.value is mine
    epoch, step = (fatal - 1) // 8 + 1, (fatal - 1) % 8 + 1
    name = f"CKP_rank_0-{epoch}_{step}_breakpoint.ckpt"
    assert files(CHECKPOINTS) == [name]
    assert meta(CHECKPOINTS) == {"last_epoch": epoch, "last_step": step, "last_ckpt_file": name}
    found = loaded(f"{CHECKPOINTS}/{name}")
    assert (int(found["epoch_num"]), int(found["step_num"])) == (epoch, fatal)
    assert_equal(found, values(trained.train_network))


def test_without_exception_save_a_failure_saves_nothing():
    """As upstream: the default leaves the files that were there."""
    with pytest.raises(RuntimeError):
        train(2, callbacks=[At(6, raising(RuntimeError("no")))])
    assert files(CHECKPOINTS) == ["CKP_rank_0-1_4.ckpt"]


def test_saving_by_seconds(plain):
    """Every so many seconds of a clock that only the test moves."""
    clock = SteppedClock()
    plain(world=replace(World(), clock=clock))
    callbacks = [At(n, lambda: clock.advance(10)) for n in range(1, 17)]
    trained = model()
    saves = monitor(save_checkpoint_steps=0, save_checkpoint_seconds=45, keep_checkpoint_max=9)
    trained.train(2, dataset(), callbacks=[*callbacks, saves], dataset_sink_mode=False)
    assert files(CHECKPOINTS) == [f"CKP_rank_0-{n}.ckpt" for n in ("1_5", "2_2", "2_7", "2_8")]


def test_keeping_by_minutes(plain):
    """One checkpoint for each so many minutes, and always the newest."""
    clock = SteppedClock()
    plain(world=replace(World(), clock=clock))
    callbacks = [At(n, lambda: clock.advance(30)) for n in range(1, 17)]
    saves = monitor(save_checkpoint_steps=1, keep_checkpoint_max=0, keep_checkpoint_per_n_minutes=2)
    model().train(2, dataset(), callbacks=[*callbacks, saves], dataset_sink_mode=False)
    # Made after 0.5, 2.5, 4.5 and 6.5 minutes; and the newest.
    assert files(CHECKPOINTS) == [f"CKP_rank_0-{n}.ckpt" for n in ("1_1", "1_5", "2_1", "2_5", "2_8")]


def test_config_wins(capsys):
    """MindSpore's own configuration decides, and what it overrides is named."""
    config = CheckpointConfig(save_checkpoint_steps=8, keep_checkpoint_max=1)
    train(2, config=config, save_checkpoint_steps=3)
    assert files(CHECKPOINTS) == ["CKP_rank_0-2_8.ckpt"]
    assert "no effect: save_checkpoint_steps" in capsys.readouterr().err


def test_a_second_run_overwrites_nothing(plain):
    """The same folder again: new names for what is taken, and retention counts both runs."""
    train(1, keep_checkpoint_max=3)
    first = (files(CHECKPOINTS), loaded(f"{CHECKPOINTS}/CKP_rank_0-1_8.ckpt"))
    plain()
    trained = train(1, keep_checkpoint_max=3)
    assert first[0] == ["CKP_rank_0-1_4.ckpt", "CKP_rank_0-1_8.ckpt"]
    assert files(CHECKPOINTS) == ["CKP_rank_0-1_8.ckpt", "CKP_rank_0_1-1_4.ckpt", "CKP_rank_0_1-1_8.ckpt"]
    assert_equal(loaded(f"{CHECKPOINTS}/CKP_rank_0-1_8.ckpt"), first[1])
    assert_equal(loaded(f"{CHECKPOINTS}/CKP_rank_0_1-1_8.ckpt"), values(trained.train_network))


def test_a_split_parameter_is_merged_for_stock():
    """integrated_save: stock finds the whole, resuming finds this rank's part beside it.

    CPU refuses automatic parallel, so the collective operation is a stand-in; the layout, and the function
    that puts parts together, are MindSpore's own.
    """
    network = SmallNetwork()
    halves = model(network)

    class Twice:
        def __call__(self, part):
            return ms.ops.concat([part, part])

    cell = halves.train_network
    # Device matrix [2], first axis split over it: as a compiled network has it.
    cell.parameter_layout_dict = {"second.weight": ([2], [0, -1], [3, 5], 0, True, "", [6, 5], [3, 5])}
    cell.parallel_parameter_merge_net_dict = {"second.weight": Twice()}
    halves.train(1, dataset(), callbacks=[monitor(save_network_params=True)], dataset_sink_mode=False)
    part = values(network)["second.weight"]
    whole = np.concatenate([part, part])
    for path in (f"{CHECKPOINTS}/CKP_rank_0-1_8.ckpt", f"{NETWORKS}/CKP_rank_0-network-1_8.ckpt"):
        assert_equal(loaded(path), {"second.weight": whole})
