"""CheckpointMonitor's arguments: their meaning, and which are rejected."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from mindspore import nn
from mindspore.train import CheckpointConfig

from resilient import CheckpointMonitor, training
from resilient.config import DEFAULT_KEEP, Best, KeepPolicy, SavePolicy
from resilient.errors import UsageError

KEY = b"0123456789abcdef"

UPSTREAM = (
    "prefix='CKP', directory=None, config=None, save_checkpoint_steps=1, save_checkpoint_seconds=0, "
    "keep_checkpoint_max=5, keep_checkpoint_per_n_minutes=0, integrated_save=True, save_network_params=True, "
    "save_trainable_params=False, async_save=False, saved_network=None, append_info=None, enc_key=None, "
    "enc_mode='AES-GCM', exception_save=False, global_batch_size=None"
)


def test_the_signature_is_upstreams():
    """Names, order and defaults."""
    parameters = list(inspect.signature(CheckpointMonitor).parameters.values())
    assert ", ".join(f"{p.name}={p.default!r}" for p in parameters) == UPSTREAM


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"prefix": 3}, ValueError, "prefix"),
        ({"prefix": ""}, ValueError, "prefix"),
        ({"prefix": "a/b"}, ValueError, "prefix"),
        ({"directory": 3}, ValueError, "directory"),
        ({"directory": ""}, ValueError, "directory"),
        ({"config": {"save_checkpoint_steps": 3}}, TypeError, "CheckpointConfig"),
        ({"save_checkpoint_steps": 3, "save_checkpoint_seconds": 9}, ValueError, "exclude each other"),
        ({"keep_checkpoint_max": 3, "keep_checkpoint_per_n_minutes": 9}, ValueError, "exclude each other"),
        ({"save_checkpoint_steps": -1}, ValueError, "save_checkpoint_steps"),
        ({"save_checkpoint_steps": 1.5}, ValueError, "save_checkpoint_steps"),
        ({"save_checkpoint_steps": True}, ValueError, "save_checkpoint_steps"),
        ({"keep_checkpoint_max": -1}, ValueError, "keep_checkpoint_max"),
        ({"global_batch_size": -8}, ValueError, "global_batch_size"),
        ({"async_save": "later"}, ValueError, "async_save"),
        ({"async_save": 1}, ValueError, "async_save"),
        ({"exception_save": "yes"}, TypeError, "exception_save"),
        ({"integrated_save": 1}, TypeError, "integrated_save"),
        ({"save_network_params": None}, TypeError, "save_network_params"),
        ({"enc_mode": "ROT13"}, ValueError, "AES-GCM, AES-CBC, SM4-CBC"),
        ({"enc_key": "text"}, TypeError, "bytes"),
        ({"enc_key": b"short"}, ValueError, "16 or 24 or 32"),
        ({"enc_key": KEY * 2, "enc_mode": "SM4-CBC"}, ValueError, "16"),
        ({"append_info": {"a": 1}}, TypeError, "list"),
        ({"append_info": ["loss"]}, ValueError, "'loss'"),
        ({"append_info": [{"a": 1}, {"b": 2}]}, TypeError, "one dict"),
        ({"append_info": [{1: 1}]}, TypeError, "str"),
        ({"append_info": [{"a": [1]}]}, TypeError, "'a'"),
        ({"append_info": [{"a": 2**70}]}, ValueError, "64 bits"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, error, words):
    """Invalid arguments raise upstream's errors, or a clear one where upstream ignores them."""
    with pytest.raises(error, match=words):
        CheckpointMonitor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "save", "keep"),
    [
        ({}, SavePolicy(every_steps=1), KeepPolicy(max_count=5)),
        ({"save_checkpoint_seconds": 30}, SavePolicy(every_s=30.0), KeepPolicy(max_count=5)),
        ({"save_checkpoint_steps": 0, "save_checkpoint_seconds": 30}, SavePolicy(every_s=30.0), None),
        ({"save_checkpoint_steps": 0}, SavePolicy(), None),
        ({"save_checkpoint_steps": None, "save_checkpoint_seconds": None}, SavePolicy(), None),
        ({"keep_checkpoint_per_n_minutes": 9}, None, KeepPolicy(per_minutes=9)),
        ({"keep_checkpoint_max": 0}, None, KeepPolicy(max_count=1)),
        ({"keep_checkpoint_max": 7}, None, KeepPolicy(max_count=7)),
    ],
)
def test_policies_are_upstreams(arguments, save, keep):
    """An untouched default never counts as given; 0 and None switch a policy off."""
    settings = CheckpointMonitor(**arguments).settings
    assert save is None or settings.save == save
    assert keep is None or settings.keep == keep


def test_a_config_decides_alone():
    """Each field of a config counts; one warning names the overridden arguments, but no defaults."""
    config = CheckpointConfig(
        save_checkpoint_steps=0,
        save_checkpoint_seconds=40,
        keep_checkpoint_max=0,
        keep_checkpoint_per_n_minutes=6,
        async_save=True,
        append_info=["epoch_num", {"rate": 0.5}],
        enc_key=KEY,
        enc_mode="SM4-CBC",
        exception_save=True,
    )
    settings = CheckpointMonitor(config=config, keep_checkpoint_max=3, enc_mode="AES-GCM").settings
    assert (settings.save, settings.keep) == (SavePolicy(every_s=40.0), KeepPolicy(per_minutes=6))
    assert (settings.asynchronous, settings.exception_save) == ("thread", True)
    assert settings.append["rate"] == 0.5
    assert (settings.sealing.mode, settings.sealing.key) == ("SM4-CBC", KEY)
    assert settings.warnings == (
        "config is given, so these arguments of CheckpointMonitor have no effect: keep_checkpoint_max",
    )


def test_a_path_is_a_directory_and_a_key_is_not_shown():
    """A Path is accepted as the directory, unlike upstream; the key stays out of ``repr``."""
    settings = CheckpointMonitor(directory=Path("somewhere"), enc_key=KEY).settings
    assert settings.directory == Path("somewhere")
    assert "0123456789" not in repr(settings)


def kept_by(**arguments):
    """The keep policy of a custom loop."""
    return training(nn.Dense(2, 2), **arguments)._settings.keep


def test_what_a_loop_of_ones_own_keeps():
    """Each rule replaces the default rule of its kind, and leaves the others."""
    assert kept_by() == DEFAULT_KEEP
    assert kept_by(keep_max=2, keep_every_steps=50) == KeepPolicy(2, every_steps=50)
    assert kept_by(keep_best=3) == KeepPolicy(5, best=Best(3))
    assert kept_by(keep_best=3, keep_best_by="f1:max") == KeepPolicy(5, best=Best(3, "f1", "max"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep_max": 0},
        {"keep_every_steps": -1},
        {"keep_best": True},
        {"keep_best": 1, "keep_best_by": "f1"},
        {"keep_best_by": "f1:max"},
    ],
)
def test_what_a_loop_of_ones_own_cannot_keep(arguments):
    """Numbers below one, and a metric without its direction or number, are rejected."""
    with pytest.raises(ValueError, match=r"keep_|which values are better"):
        kept_by(**arguments)


def test_reporting_outside_of_the_loop_is_refused():
    """A report outside the loop is rejected: it belongs to no step."""
    with pytest.raises(UsageError, match="outside of the loop"):
        training(nn.Dense(2, 2)).report(loss=0.5)
