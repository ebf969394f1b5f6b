"""Where a patch is read: rotations keep distances in mm, and the window holds what can be reached, no more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.augment.draw import Drawn, Elastic
from data.augment.resample import coordinates
from data.augment.warp import make_warp

CPU = torch.device("cpu")
PATCH = (8, 10, 9)
SHAPE = (80, 90, 85)
START = (30, 41, 35)


def _where(drawn: Drawn, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> NDArray[np.float32]:
    return coordinates(make_warp(drawn, spacing_mm, PATCH, START, SHAPE), PATCH, CPU).numpy()


def test_a_patch_that_does_not_change_is_read_where_it_lies() -> None:
    expected = np.stack(np.meshgrid(*(np.arange(s, s + p) for s, p in zip(START, PATCH, strict=True)), indexing="ij"))
    np.testing.assert_array_equal(_where(Drawn(scale=1.0)), expected)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.1)])
def test_a_rotation_keeps_distances_in_mm(spacing_mm: tuple[float, float, float]) -> None:
    spacing = np.array(spacing_mm)[:, None]
    straight = _where(Drawn(scale=1.0), spacing_mm).reshape(3, -1).astype(float) * spacing
    turned = _where(Drawn(angles_degrees=(25.0, -17.0, 40.0)), spacing_mm).reshape(3, -1).astype(float) * spacing
    one, other = np.random.default_rng(0).integers(0, straight.shape[1], (2, 500))
    np.testing.assert_allclose(
        np.linalg.norm(turned[:, one] - turned[:, other], axis=0),
        np.linalg.norm(straight[:, one] - straight[:, other], axis=0),
        atol=2e-4,
    )
    assert np.abs(turned - straight).max() > 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_angle_turns_about_its_axis(axis: int) -> None:
    """By 90 degrees about the centre, the axis itself stays."""
    angles = [0.0, 0.0, 0.0]
    angles[axis] = 90.0
    centre = np.array(START) + (np.array(PATCH) - 1) / 2
    found = _where(Drawn(angles_degrees=(angles[0], angles[1], angles[2]))) - centre[:, None, None, None]
    straight = _where(Drawn(scale=1.0)) - centre[:, None, None, None]
    one, other = [(1, 2), (2, 0), (0, 1)][axis]
    np.testing.assert_allclose(found[axis], straight[axis], atol=1e-4)
    np.testing.assert_allclose(found[one], straight[other], atol=1e-4)
    np.testing.assert_allclose(found[other], -straight[one], atol=1e-4)


def test_a_scale_above_one_shows_more() -> None:
    extent = np.ptp(_where(Drawn(scale=1.5)), axis=(1, 2, 3))
    np.testing.assert_allclose(extent, 1.5 * (np.array(PATCH) - 1), rtol=1e-6)


@pytest.mark.parametrize(
    "drawn",
    [
        Drawn(angles_degrees=(20.0, 30.0, -10.0)),
        Drawn(angles_degrees=(-30.0, 5.0, 28.0), scale=1.4),
        Drawn(scale=0.7),
        Drawn(angles_degrees=(12.0, -30.0, 8.0), scale=1.2, elastic=Elastic(30.0, 2.0, seed=5)),
    ],
)
def test_the_window_is_the_integer_box_of_all_coordinates(drawn: Drawn) -> None:
    spacing_mm = (2.0, 1.0, 1.5)
    warp = make_warp(drawn, spacing_mm, PATCH, START, SHAPE)
    window = np.array(warp.window(PATCH, margin=0))
    where = _where(drawn, spacing_mm).reshape(3, -1)
    tight = np.stack([np.floor(where.min(axis=1)), np.ceil(where.max(axis=1)) + 1], axis=1)
    if drawn.elastic is None:
        np.testing.assert_array_equal(window, tight)
    else:
        assert (window[:, 0] <= tight[:, 0]).all()
        assert (window[:, 1] >= tight[:, 1]).all()
    np.testing.assert_array_equal(np.array(warp.window(PATCH, margin=3)), window + np.array([[-3, 3]]))


def test_the_window_ends_with_the_volume() -> None:
    warp = make_warp(Drawn(scale=3.0), (1.0, 1.0, 1.0), PATCH, (0, 41, 76), SHAPE)
    window = np.array(warp.window(PATCH, margin=13))
    np.testing.assert_array_equal(window[:, 0] >= 0, True)
    assert window[0, 0] == 0
    assert window[2, 1] == SHAPE[2]
    assert 0 < window[1, 0] < window[1, 1] < SHAPE[1]


def test_a_patch_wholly_behind_the_volume_still_has_a_window() -> None:
    warp = make_warp(Drawn(scale=0.5), (1.0, 1.0, 1.0), (40, 40, 40), (0, 0, 0), (5, 40, 40))
    assert warp.window((40, 40, 40), margin=0)[0] == (4, 5)
