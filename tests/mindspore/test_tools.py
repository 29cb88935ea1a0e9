"""The tools beside real MindSpore: what stock saved is gone on with, what we export is opened by stock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from computed_once import computed_once
from small import STEPS_PER_EPOCH, SmallNetwork, dataset, files, model, values

from resilient import CheckpointMonitor

PROGRAM = Path(__file__).parent / "programs" / "stock.py"
EPOCHS = 4

pytestmark = pytest.mark.mindspore


def call(*words, status=0, **more):
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **more)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said


def result(said):
    return next(line for line in said.splitlines() if line.startswith("result "))


def uninterrupted(kind):
    words = (PROGRAM, kind, EPOCHS)
    return computed_once(f"{words}", lambda folder: result(call(*words, folder, cwd=folder)))


@pytest.mark.parametrize("kind", ["momentum", "fit", "tail", "encrypted"])
def test_what_stock_began_is_brought_to_its_end(tmp_path, kind):
    """Trained in part with stock's ModelCheckpoint, adopted, and gone on with: the final weights and the
    optimizer's state are those of a training that was never interrupted, bit for bit."""
    call(PROGRAM, kind, EPOCHS, tmp_path, "stock", cwd=tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "stock").iterdir()}
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef".hex().encode())
    key.chmod(0o600)
    words = ["--key-file", key] if kind == "encrypted" else ["--no-encrypt"]
    step = 14 if kind == "tail" else 10
    said = call("-m", "resilient.tools", "adopt", tmp_path / "stock", "--run-dir", tmp_path / "run", *words)
    assert f"step {step} " in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "stock").iterdir()} == before
    words += ["--enc-mode", "AES-CBC"] if kind == "encrypted" else []
    run = [
        "-m",
        "supervisor.command.cli",
        "--run-dir",
        tmp_path / "run",
        *words,
        PROGRAM,
        kind,
        EPOCHS,
        tmp_path,
    ]
    said = call(*run, cwd=tmp_path)
    assert f"resumed at step {step} " in said
    assert said.count("no random streams with it") == 1
    assert result(said) == uninterrupted(kind)


def test_another_network_is_refused(tmp_path):
    """A folder of another network's: the first differences are told, with status 65."""
    call(PROGRAM, "momentum", EPOCHS, tmp_path, "stock", cwd=tmp_path)
    call("-m", "resilient.tools", "adopt", tmp_path / "stock", "--run-dir", tmp_path / "run", "--no-encrypt")
    words = ["--run-dir", tmp_path / "run", "--no-encrypt", "--max-restarts", "0"]
    said = call(
        "-m", "supervisor.command.cli", *words, PROGRAM, "adam", EPOCHS, tmp_path, status=65, cwd=tmp_path
    )
    assert "the checkpoint has no 'moment1." in said


@pytest.fixture
def run(tmp_path, plain):
    """A run of the plain monitor, encrypted, with one checkpoint; and its network."""
    network = SmallNetwork()
    key = bytes(range(32))
    (tmp_path / "key").write_text(key.hex())
    (tmp_path / "key").chmod(0o600)
    monitor = CheckpointMonitor(
        directory="out", enc_key=key, save_checkpoint_steps=5, append_info=[{"note": "héllo", "rate": 0.5}]
    )
    trained = model(network)
    trained.train(1, dataset(), callbacks=[monitor])
    plain()
    return trained.train_network


def opened(path, **more):
    """What stock reads out of a file: arrays by name, and texts."""
    found = ms.load_checkpoint(str(path), **more)
    return {name: p.asnumpy() if hasattr(p, "asnumpy") else p for name, p in found.items()}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_stock_opens_what_is_exported(run, tmp_path, suffix):
    """load_checkpoint reads it without a key: every parameter, bit for bit, and the counters."""
    out = tmp_path / f"exported.{suffix}"
    call("-m", "resilient.tools", "export", "out", "--out", out, "--key-file", "key", cwd=tmp_path)
    found = opened(out, format=suffix)
    for name, array in values(run).items():
        assert found[name].tobytes() == array.tobytes(), name
    assert int(found["step_num"]) == STEPS_PER_EPOCH
    assert np.float32(found["rate"]) == np.float32(0.5)


def test_a_rekeyed_run_is_stocks_too(run, tmp_path):
    """After a rekey stock opens the checkpoint with the new key, and the weights file as well."""
    call("-m", "resilient.tools", "key", "make", "new", cwd=tmp_path)
    words = ["rekey", "out", "--old-key-file", "key", "--key-file", "new", "--enc-mode", "AES-CBC"]
    call("-m", "resilient.tools", *words, cwd=tmp_path)
    key = bytes.fromhex((tmp_path / "new").read_text())
    for folder in ("checkpoint", "checkpoint_network"):
        place = tmp_path / "out" / folder / "rank_0"
        for name in files(place):
            found = opened(place / name, dec_key=key, dec_mode="AES-CBC")
            assert found["first.weight"].shape == (5, 4)
    newest = json.loads((tmp_path / "out" / "checkpoint" / "rank_0" / "meta.json").read_text())
    path = tmp_path / "out" / "checkpoint" / "rank_0" / newest["last_ckpt_file"]
    found = opened(path, dec_key=key, dec_mode="AES-CBC")
    assert found["first.weight"].tobytes() == values(run)["first.weight"].tobytes()
