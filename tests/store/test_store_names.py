"""Names on disk: they parse back, and different kinds cannot be confused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.store import layout
from resilient.store.layout import CheckpointName, WeightsName, free_name, parse_checkpoint, parse_weights

prefixes = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12
)
checkpoints = st.builds(
    CheckpointName,
    prefix=prefixes,
    rank=st.integers(0, 999),
    epoch=st.integers(0, 10**6),
    step_in_epoch=st.integers(0, 10**6),
    failure=st.booleans(),
    copy=st.integers(0, 99),
)
weights = st.builds(
    WeightsName,
    prefix=prefixes,
    rank=st.integers(0, 999),
    kind=st.sampled_from([layout.NETWORK, layout.TRAINABLE]),
    epoch=st.integers(0, 10**6),
    step_in_epoch=st.integers(0, 10**6),
)


@given(checkpoints)
def test_a_checkpoints_name_says_all_of_it(name):
    """With any prefix, a checkpoint's name parses back to its parts."""
    assert parse_checkpoint(name.data) == name
    assert layout.data_of(layout.manifest_of(name.data)) == name.data
    assert not layout.is_temporary(name.data)


@given(weights)
def test_a_weights_name_says_all_of_it(name):
    """A weights file's name parses back to its parts, and is never a checkpoint's name."""
    assert parse_weights(name.data) == name
    assert parse_checkpoint(name.data) is None


@given(checkpoints, st.binary(min_size=8, max_size=8))
def test_a_temporary_name_is_nobody_elses(name, token):
    """A temporary name is recognised, gives back its final name, and does not count as a checkpoint."""
    for final in (name.data, name.manifest, layout.META_NAME):
        temporary = layout.temporary(final, token.hex())
        assert layout.is_temporary(temporary)
        assert layout.final_of(temporary) == final
        assert temporary[0] == "."
        assert parse_checkpoint(temporary) is None


@pytest.mark.parametrize(
    "name",
    [
        "CKP-1_2.ckpt",
        "CKP_rank_0-1_2.manifest",
        "CKP_rank_0-01_2.ckpt",
        "CKP_rank_0-1_2_.ckpt",
        "_rank_0-1_2.ckpt",
        "CKP_rank_-1-1_2.ckpt",
        "CKP_rank_٣-1_2.ckpt",
        "CKP_rank_0_0-1_2.ckpt",
        "CKP_rank_0-1_2.ckpt.tmp",
    ],
)
def test_other_names_are_no_checkpoints(name):
    """A name that differs in anything from those that we give does not parse."""
    assert parse_checkpoint(name) is None


@pytest.mark.parametrize(
    "name", [".x.ckpt.tmp", "x.ckpt.0123456789abcdef.tmp", ".x.0123456789abcdef.tmp", ".x.swp"]
)
def test_other_peoples_temporaries_are_not_ours(name):
    """Temporary files with other names never count as ours."""
    assert not layout.is_temporary(name)


def test_a_taken_name_gets_stocks_suffix():
    """``free_name`` takes the smallest suffix with which the data's and the manifest's name are free."""
    wanted = CheckpointName("CKP", 0, 2, 3)
    taken = {"CKP_rank_0-2_3.ckpt", "CKP_rank_0_1-2_3.manifest"}
    assert free_name(wanted, ()).data == "CKP_rank_0-2_3.ckpt"
    assert free_name(wanted, taken).data == "CKP_rank_0_2-2_3.ckpt"


def test_folders_are_upstreams():
    """The folders are those of upstream's CheckpointMonitor."""
    root = Path("/run")
    assert layout.rank_lock(root, 3) == Path("/run/.rank_3.lock")
    assert layout.checkpoint_directory(root, 3) == Path("/run/checkpoint/rank_3")
    assert layout.network_directory(root, 0) == Path("/run/checkpoint_network/rank_0")
    assert layout.trainable_directory(root, 0) == Path("/run/checkpoint_trainable/rank_0")
    assert layout.quarantine_directory(root) == Path("/run/quarantine")
    assert CheckpointName("CKP", 0, 2, 3, failure=True).data == "CKP_rank_0-2_3_breakpoint.ckpt"
    assert WeightsName("CKP", 0, layout.NETWORK, 2, 1).data == "CKP_rank_0-network-2_1.ckpt"
    assert WeightsName("CKP", 0, layout.TRAINABLE, 2, 1).data == "CKP_rank_0-trainable_params-2_1.ckpt"
