"""When the disk will be full: forecast from what was measured, warned of once and in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.watching.growth import GrowthHistory, Sample, forecast, measure, observe

GB = 10**9
MINUTE_S = 60.0


def course(frees, owns=None, every_s=300.0):
    """Samples, one at each save."""
    owns = owns or [0] * len(frees)
    return [Sample(i * every_s, free, own) for i, (free, own) in enumerate(zip(frees, owns, strict=True))]


def warnings(samples, checkpoint_bytes=0, own_most_bytes=math.inf):
    """What is told at each sample."""
    watching, told = GrowthHistory(), []
    for sample in samples:
        watching, text = observe(watching, sample, checkpoint_bytes, own_most_bytes)
        told.append(text)
    return told


def test_a_steady_fall_is_foreseen():
    """1 GB in 5 minutes, 10 GB free: 50 minutes are left, and that is told once."""
    samples = course([20 * GB - i * GB for i in range(11)])
    coming = forecast(samples, GB)
    assert coming.left_s == pytest.approx(50 * MINUTE_S)
    assert coming.fits == 10
    told = warnings(samples)
    assert [i for i, text in enumerate(told) if text] == [9]
    assert "full in about 55 min: 200 MB a minute, most of it not this run's" in told[9]


def test_few_checkpoints_that_fit_are_told_at_once():
    """At the first sample already: three fit, or it is said."""
    assert warnings(course([3 * GB]), GB) == [None]
    assert warnings(course([3 * GB - 1]), GB) == [
        "the disk is almost full: only two more checkpoints fit; make room"
    ]
    assert "only one more" in warnings(course([GB]), GB)[0]
    assert "not one more" in warnings(course([GB - 1]), GB)[0]


def test_told_again_only_after_there_was_room():
    """At the edge nothing is repeated; once space was freed and is used up again, it is."""
    frees = [2 * GB, 4 * GB, 2 * GB, 2 * GB, 50 * GB, 2 * GB, GB]
    told = warnings(course(frees, every_s=1e6), GB)
    assert [i for i, text in enumerate(told) if text] == [0, 5]


def test_a_new_run_that_fills_its_five_places_is_no_alarm():
    """Its folder grows by a checkpoint at each save, until retention holds it: that is known."""
    owns = [i * GB for i in range(1, 5)]
    samples = course([7 * GB - own for own in owns], owns)
    assert warnings(samples, own_most_bytes=5 * GB) == [None] * 4
    assert any(warnings(samples, own_most_bytes=50 * GB)), "one that keeps fifty is"
    assert "most of it this run's own" in next(filter(None, warnings(samples)))


def test_a_folder_held_by_retention_is_no_trend():
    """Up by a checkpoint and down again, for hours: nothing is told, and no end is foreseen soon."""
    owns = [5 * GB + (i % 2) * GB for i in range(60)]
    samples = course([20 * GB - own for own in owns], owns)
    assert warnings(samples, GB) == [None] * 60


def test_one_jump_is_no_rate():
    """Two samples, or a minute, say nothing of the future."""
    assert forecast(course([9 * GB, 4 * GB]), GB).left_s == math.inf
    assert forecast(course([9 * GB, 4 * GB, 3 * GB], every_s=1), GB).left_s == math.inf


def test_room_that_somebody_made_ends_the_trend():
    """What was measured before it says nothing any more: no alarm although the disk was filling."""
    frees = [20 * GB - i * GB for i in range(11)] + [500 * GB, 499 * GB, 498 * GB]
    assert [i for i, text in enumerate(warnings(course(frees))) if text] == [9]
    watching = GrowthHistory()
    for sample in course(frees):
        watching, _ = observe(watching, sample, 0)
    assert [sample.free_bytes for sample in watching.samples] == frees[11:]


@given(st.integers(1, 10**6), st.integers(0, 10**13), st.integers(3, 40), st.floats(30, 3600))
def test_the_forecast_of_a_straight_line_is_exact(rate, left, count, every_s):
    """What falls evenly is empty when it is said to be."""
    frees = [left + round(rate * every_s * (count - 1 - i)) for i in range(count)]
    coming = forecast(course(frees, every_s=every_s), 0)
    assert coming.left_s == pytest.approx(left / rate, rel=1e-3, abs=2)


SAMPLES = st.lists(
    st.builds(Sample, st.floats(0, 1e7), st.integers(0, 2**60), st.integers(0, 2**60)),
    min_size=1,
    max_size=40,
)


@given(SAMPLES, st.integers(0, 2**50), st.floats(0, 2**60))
def test_any_course_of_things_can_be_watched(samples, checkpoint_bytes, own_most_bytes):
    """Clocks that jump and sizes out of nowhere: a time that is not negative, and never two warnings in a row
    of the same kind."""
    watching = GrowthHistory()
    for sample in samples:
        before = watching
        watching, text = observe(watching, sample, checkpoint_bytes, own_most_bytes)
        coming = forecast(watching.samples, checkpoint_bytes, own_most_bytes)
        assert coming.left_s >= 0
        assert 0 <= coming.own_share <= 1
        if text is not None:
            assert not before.warned_few or not before.warned_soon
        assert len(watching.samples) <= 32


def test_a_real_folder_is_measured(tmp_path):
    """What its files take on disk, and what is free there."""
    before = measure(tmp_path, 1.0)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x" * 1_000_000)
    (tmp_path / "link").symlink_to("/nowhere")
    after = measure(tmp_path, 2.0)
    assert 1_000_000 <= after.own_bytes - before.own_bytes < 1_100_000
    assert after.free_bytes > 0
