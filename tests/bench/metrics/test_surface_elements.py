"""Surface Dice and robust Hausdorff distance: against MONAI, against all pairs of surfels, and their invariances."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import SurfaceDiceMetric
from scipy.ndimage import gaussian_filter

from bench.metrics import surface_elements
from bench.metrics.marching_cubes import areas_mm2, encode
from bench.metrics.surface_elements import Surfaces

ISOTROPIC = np.ones(3)


def draw_mask(rng, shape):
    """One voxel, boxes, noise or a blob; never empty."""
    mask = np.zeros(shape, dtype=bool)
    match rng.integers(4):
        case 0:
            pass
        case 1:
            for _ in range(rng.integers(1, 4)):
                mask[tuple(slice(low, low + rng.integers(1, 9)) for low in rng.integers(shape))] = True
        case 2:
            mask = rng.random(shape) < rng.uniform(0.02, 0.98)
        case _:
            field = gaussian_filter(rng.standard_normal(shape), 1.5)
            mask = field >= np.quantile(field, rng.random())
    mask[tuple(rng.integers(shape))] = True
    return mask


@st.composite
def mask_pairs(draw, axes=3):
    """Two masks of one shape and a spacing; some differ in few voxels only."""
    shape = draw(st.tuples(*[st.integers(1, 12)] * axes))
    spacing_mm = np.array(draw(st.tuples(*[st.sampled_from((1.0, 0.5, 0.9375, 2.5))] * axes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    prediction, reference = draw_mask(rng, shape), draw_mask(rng, shape)
    if draw(st.booleans()):
        prediction = reference.copy()
        prediction[tuple(rng.integers(shape))] = True
    return prediction, reference, spacing_mm


def surfels(mask, spacing_mm):
    """Places in mm (n, axes) and areas of a mask's surface elements."""
    codes = encode(np.pad(mask, 1))
    areas = areas_mm2(spacing_mm)[codes]
    return np.argwhere(areas > 0) * spacing_mm, areas[areas > 0]


def all_pairs(prediction, reference, spacing_mm, tolerance_mm):
    """Surface Dice and robust Hausdorff distance from their definitions: the distances of all pairs of surfels.

    Where the surfels up to a distance have 95 % of the area to the last digit, rounding decides whether that is enough:
    the distances are all that it can come to, nearly always one.
    """
    (places, areas), (other_places, other_areas) = (surfels(mask, spacing_mm) for mask in (prediction, reference))
    distances_mm = np.linalg.norm(places[:, None] - other_places[None], axis=-1)
    percentiles, close = [], 0.0
    for nearest_mm, weights in ((distances_mm.min(axis=1), areas), (distances_mm.min(axis=0), other_areas)):
        order = np.argsort(nearest_mm)
        share = np.cumsum(weights[order]) / weights.sum()
        percentiles.append([nearest_mm[order][share > 0.95 + rounding][0] for rounding in (-1e-12, 1e-12)])
        close += weights[nearest_mm <= tolerance_mm].sum()
    return close / (areas.sum() + other_areas.sum()), {max(pair) for pair in product(*percentiles)}


@settings(max_examples=150, deadline=None)
@given(mask_pairs(), st.sampled_from((0.0, 1.0, 2.0, 6.3)))
def test_equals_all_pairs(pair, tolerance_mm):
    surfaces = Surfaces(*pair)
    dice, hausdorff_mm = all_pairs(*pair, tolerance_mm)
    assert surfaces.dice(tolerance_mm) == pytest.approx(dice, abs=1e-12)
    assert surfaces.robust_hausdorff() in [pytest.approx(one, abs=1e-9) for one in hausdorff_mm]


def test_rounding_may_decide_where_the_area_is_just_enough():
    """Five voxels and four of them: 95 % of the area lie within 1 mm to the last digit."""
    mask = np.zeros((1, 6, 4), dtype=bool)
    for place in ((1, 0), (1, 2), (3, 2), (4, 0), (4, 3)):
        mask[0][place] = True
    other = mask.copy()
    other[0, 4, 3] = False
    _, hausdorff_mm = all_pairs(mask, other, ISOTROPIC, 0.0)
    assert hausdorff_mm == {1.0, np.sqrt(2)}
    assert Surfaces(mask, other, ISOTROPIC).robust_hausdorff() in hausdorff_mm


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3).flatmap(mask_pairs), st.sampled_from((0.0, 1.0, 2.0, 6.3)))
def test_surface_dice_equals_monai(pair, tolerance_mm):
    prediction, reference, spacing_mm = pair
    metric = SurfaceDiceMetric(class_thresholds=[tolerance_mm], include_background=True, use_subvoxels=True)
    # MONAI crops where something is set and needs room around it.
    tensors = [torch.from_numpy(np.pad(mask, 2)[None, None].astype(np.float32)) for mask in (prediction, reference)]
    metric(*tensors, spacing=spacing_mm.tolist())
    expected = float(metric.aggregate())
    assert Surfaces(*pair).dice(tolerance_mm) == pytest.approx(expected, abs=1e-5)  # MONAI's is in single precision


@settings(max_examples=60, deadline=None)
@given(mask_pairs(), st.sampled_from((1, 2)))
def test_how_far_neighbours_are_looked_at_changes_nothing(pair, reach):
    expected = Surfaces(*pair)
    whole = surface_elements.REACH
    surface_elements.REACH = reach
    try:
        nearer = Surfaces(*pair)
        assert nearer.robust_hausdorff() == pytest.approx(expected.robust_hausdorff(), abs=1e-12)
        for tolerance_mm in (0.0, 1.0, 4.0):
            assert nearer.dice(tolerance_mm) == pytest.approx(expected.dice(tolerance_mm), abs=1e-12)
    finally:
        surface_elements.REACH = whole


@settings(max_examples=40, deadline=None)
@given(mask_pairs())
def test_symmetric(pair):
    prediction, reference, spacing_mm = pair
    one, other = Surfaces(prediction, reference, spacing_mm), Surfaces(reference, prediction, spacing_mm)
    assert one.dice(1.0) == pytest.approx(other.dice(1.0), abs=1e-12)
    assert one.robust_hausdorff() == other.robust_hausdorff()


@settings(max_examples=40, deadline=None)
@given(mask_pairs(), st.integers(0, 5), st.integers(0, 5))
def test_translation_does_not_matter(pair, before, after):
    prediction, reference, spacing_mm = pair
    here = Surfaces(*pair)
    there = Surfaces(*(np.pad(mask, (before, after)) for mask in (prediction, reference)), spacing_mm)
    assert there.dice(1.0) == here.dice(1.0)
    assert there.robust_hausdorff() == here.robust_hausdorff()


@settings(max_examples=40, deadline=None)
@given(mask_pairs(), st.sampled_from((0.25, 4.0, 1024.0)))
def test_spacing_and_tolerance_scale_together(pair, factor):
    prediction, reference, spacing_mm = pair
    here, scaled = Surfaces(*pair), Surfaces(prediction, reference, factor * spacing_mm)
    assert scaled.dice(factor) == pytest.approx(here.dice(1.0), abs=1e-12)
    assert scaled.robust_hausdorff() == pytest.approx(factor * here.robust_hausdorff(), rel=1e-12)


def test_axis_order_does_not_matter():
    rng = np.random.default_rng(3)
    prediction, reference = rng.random((2, 8, 9, 10)) < 0.2
    spacing_mm = np.array([2.0, 0.5, 1.0])
    here = Surfaces(prediction, reference, spacing_mm)
    transposed = Surfaces(prediction.T.copy(), reference.T.copy(), spacing_mm[::-1])
    assert transposed.dice(1.0) == pytest.approx(here.dice(1.0), abs=1e-12)
    assert transposed.robust_hausdorff() == pytest.approx(here.robust_hausdorff(), abs=1e-12)


def test_a_tolerance_counts_distances_that_equal_it():
    """Two voxels beside each other, 1 mm: each has 4 of 8 surfels in common with the other, 4 lie 1 mm away."""
    prediction, reference = np.zeros((2, 1, 1, 2), dtype=bool)
    prediction[..., 0], reference[..., 1] = True, True
    surfaces = Surfaces(prediction, reference, ISOTROPIC)
    assert surfaces.dice(0.0) == 0.5
    assert surfaces.dice(0.999) == 0.5
    assert surfaces.dice(1.0) == 1.0
    assert surfaces.robust_hausdorff() == 1.0


def in_a_row(count, size, moved):
    """Equal boxes in a row, far from each other, and the same with the last one moved along the row."""
    reference = np.zeros((6, 7, 12 * count + 12), dtype=bool)
    for place in range(count):
        reference[2 : 2 + size[0], 2 : 2 + size[1], 4 + 12 * place : 4 + 12 * place + size[2]] = True
    prediction = reference.copy()
    prediction[..., 12 * count - 9 :] = np.roll(prediction[..., 12 * count - 9 :], moved, axis=-1)
    return prediction, reference


@pytest.mark.parametrize(("count", "expected_mm"), [(5, 3.0), (10, 2.0), (21, 0.0)])
def test_the_percentile_is_the_shortest_distance_that_95_percent_of_the_area_do_not_exceed(count, expected_mm):
    """Voxels of 8 equal surfels each, one of them moved by 3 mm: 4 of its surfels are then 2 mm and 4 are 3 mm away.

    95 % are 38 of 40, 76 of 80 and 159.6 of 168: with ten voxels exactly those up to 2 mm.
    """
    prediction, reference = in_a_row(count, (1, 1, 1), 3)
    assert Surfaces(prediction, reference, ISOTROPIC).robust_hausdorff() == expected_mm


@pytest.mark.parametrize(
    ("size", "spacing_mm", "expected_mm"),
    [
        ((2, 3, 2), (1, 1, 1), 0.0),
        ((2, 3, 2), (0.7, 0.7, 0.7), 0.0),
        ((2, 3, 2), (0.8, 0.8, 0.8), 0.8),
        ((2, 3, 2), (1, 1, 2.5), 2.5),
        ((1, 2, 2), (1, 1, 1), 0.0),
        ((1, 2, 2), (0.7, 0.7, 0.7), 0.7),
    ],
)
def test_a_share_of_exactly_95_percent_is_judged_by_the_references_rounding(size, spacing_mm, expected_mm):
    """Twenty boxes, one moved by three voxels: on paper 95 % of the area are at 0 mm, in floating point not always."""
    pair = in_a_row(20, size, 3)
    assert Surfaces(*pair, np.array(spacing_mm, dtype=float)).robust_hausdorff() == expected_mm
