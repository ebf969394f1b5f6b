"""Resampling between spacings: where voxels land, what is blended, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from data.errors import DataError
from data.resample import coarse_axis, resample_image, resample_label, resampled_shape


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "target_mm", "expected"),
    [
        ((10, 100, 100), (5.0, 0.8, 0.8), (1.0, 1.0, 1.0), (50, 80, 80)),
        ((10, 100, 100), (1.0, 1.0005, 0.9995), (1.0, 1.0, 1.0), (10, 100, 100)),
        ((3, 4, 5), (1.0, 1.0, 1.0), (100.0, 1.0, 1.0), (1, 4, 5)),
    ],
)
def test_shapes_follow_spacings(shape, spacing_mm, target_mm, expected):
    assert resampled_shape(shape, spacing_mm, target_mm) == expected


def test_a_shape_beyond_memory_is_refused_with_its_numbers():
    with pytest.raises(
        DataError, match=r"512×512×400 voxels of 0.8×0.8×5 mm would become 4096×4096×20000 at 0.1.*native"
    ):
        resampled_shape((512, 512, 400), (0.8, 0.8, 5.0), (0.1, 0.1, 0.1))


@pytest.mark.parametrize(
    ("spacing_mm", "target_mm", "axis"),
    [
        ((5.0, 0.8, 0.8), (1.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 1.0), (0.5, 0.5, 4.0), 2),  # nothing was coarse, but something becomes so
        ((2.4, 0.8, 0.8), (0.8, 0.8, 0.8), None),  # three times is not more than three times
        ((5.0, 5.0, 0.8), (1.0, 1.0, 1.0), None),  # two coarse axes: no slices to stay within
    ],
)
def test_slices_are_kept_apart_where_one_axis_is_more_than_three_times_coarser(spacing_mm, target_mm, axis):
    assert coarse_axis(spacing_mm, target_mm) == axis


@pytest.mark.parametrize("shape", [(20, 30, 40), (30, 21, 25), (10, 15, 20)])
def test_positions_in_space_are_kept(shape):
    """A ramp along each axis, in units of the volume's extent, is the same ramp on any grid, but for its ends."""
    old = (20, 30, 40)
    for axis in range(3):
        ramp, expected = (
            np.broadcast_to(
                np.moveaxis(((np.arange(extents[axis]) + 0.5) / extents[axis])[:, None, None], 0, axis), extents
            )
            for extents in (old, shape)
        )
        found = resample_image(np.ascontiguousarray(ramp, np.float32), shape)
        inner = (slice(4, -4),) * 3
        np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)


def test_cubic_splines_find_a_smooth_function_and_do_not_leave_its_range():
    wave = np.sin(np.linspace(0, 3 * np.pi, 40, endpoint=False) + 3 * np.pi / 80).astype(np.float32)
    image = np.ascontiguousarray(np.broadcast_to(wave, (4, 5, 40)))
    found = resample_image(image, (4, 5, 100))
    wanted = np.sin((np.arange(100) + 0.5) / 100 * 3 * np.pi)
    inner = (np.abs(wanted) < 0.98) & (np.abs(np.arange(100) - 49.5) < 40)  # away from the ends and the clipped peaks
    np.testing.assert_allclose(found[2, 2][inner], wanted[inner], atol=1e-3)
    linear = ndimage.zoom(wave, 2.5, order=1, mode="nearest", grid_mode=True)
    assert np.abs(linear - wanted)[inner].max() > 5e-3, "the test tells splines from straight lines"
    step = np.zeros((6, 6, 12), np.float32)
    step[..., 6:] = 1
    sharp = resample_image(step, (6, 6, 31))
    assert sharp.min() == 0
    assert sharp.max() == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_a_coarse_axis_each_slice_is_the_nearest_one_interpolated_in_its_plane(axis):
    image = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    shape = [14, 14, 14]
    shape[axis] = 12
    found = np.moveaxis(resample_image(image, tuple(shape), nearest_axis=axis), axis, 0)
    label = (image > 0).astype(np.uint8)
    found_label = np.moveaxis(resample_label(label, tuple(shape), nearest_axis=axis), axis, 0)
    slices = np.moveaxis(image, axis, 0)
    for position in range(12):
        nearest = int((position + 0.5) * 8 / 12)
        plane = ndimage.zoom(slices[nearest], 14 / 8, order=3, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(found[position], np.clip(plane, image.min(), image.max()), atol=1e-6)
        votes = ndimage.zoom((slices[nearest] > 0).astype(np.float64), 14 / 8, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_array_equal(found_label[position][np.abs(votes - 0.5) > 1e-6], (votes > 0.5)[
            np.abs(votes - 0.5) > 1e-6
        ])  # fmt: skip


@pytest.mark.parametrize("shape", [(7, 11, 13), (25, 9, 31), (12, 18, 40)])
def test_a_label_is_the_largest_of_its_classes_interpolated_linearly(shape, monkeypatch):
    random = np.random.default_rng(1)
    label = ndimage.zoom(random.integers(0, 5, (4, 5, 5)), 3, order=0).astype(np.uint8)
    factors = [new / old for old, new in zip(label.shape, shape, strict=True)]
    votes = np.stack(
        [
            ndimage.zoom((label == value).astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)
            for value in range(5)
        ]
    )
    clear = np.diff(np.sort(votes, axis=0)[-2:], axis=0)[0] > 1e-5  # a tie may fall either way by rounding
    assert clear.mean() > 0.9
    expected = votes.argmax(axis=0)
    whole = resample_label(label, shape)
    np.testing.assert_array_equal(whole[clear], expected[clear])
    monkeypatch.setattr("data.resample._SLAB_VOXELS", 1)
    np.testing.assert_array_equal(resample_label(label, shape), whole)


def test_of_equal_votes_the_smaller_value_wins():
    for pair in ((0, 1), (1, 0), (2, 1)):
        label = np.array(pair, np.uint8).reshape(1, 1, 2)
        assert resample_label(label, (1, 1, 1)).item() == min(pair)


def test_the_same_shape_is_the_same_array():
    image, label = np.ones((3, 4, 5), np.float32), np.ones((3, 4, 5), np.uint8)
    assert resample_image(image, (3, 4, 5), 0) is image
    assert resample_label(label, (3, 4, 5)) is label
