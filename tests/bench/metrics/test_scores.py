"""Dice and HD95 of masks: against medpy, against all pairs of surface voxels, and their invariances."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medpy.metric import binary as medpy
from scipy.ndimage import gaussian_filter

from bench.metrics import score_mask, surface

LARGEST_AXIS = {1: 60, 2: 30, 3: 16}


def draw_mask(rng, shape):
    """A mask of one of the kinds that break surface code: a voxel, all voxels, boxes, noise, blobs."""
    mask = np.zeros(shape, dtype=bool)
    match rng.integers(5):
        case 0:
            mask[tuple(rng.integers(shape))] = True
        case 1:
            mask[:] = True
        case 2:
            for _ in range(rng.integers(1, 4)):
                corner = rng.integers(shape)
                mask[tuple(slice(low, low + rng.integers(1, 9)) for low in corner)] = True
        case 3:
            mask = rng.random(shape) < rng.uniform(0.02, 0.98)
        case _:
            field = gaussian_filter(rng.standard_normal(shape), 1.5)
            mask = field >= np.quantile(field, rng.random())
    return mask


@st.composite
def mask_pairs(draw):
    """Two masks of one shape, neither empty, and a spacing, of one to three axes."""
    axes = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, LARGEST_AXIS[axes])] * axes))
    spacing_mm = draw(st.tuples(*[st.sampled_from((1.0, 0.1, 0.9375, 2.5, 6.0))] * axes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    prediction, reference = draw_mask(rng, shape), draw_mask(rng, shape)
    for mask in (prediction, reference):
        mask.flat[0] |= not mask.any()
    return prediction, reference, spacing_mm


def all_pairs_hd95(prediction, reference, spacing_mm):
    """HD95 from its definition: the surface voxel by voxel, and the distances of all pairs."""

    def surface_mm(mask):
        points = set(map(tuple, np.argwhere(mask).tolist()))
        steps = [
            tuple(sign * (axis == other) for other in range(mask.ndim)) for axis in range(mask.ndim) for sign in (-1, 1)
        ]
        edge = [p for p in points if any(tuple(map(sum, zip(p, step, strict=True))) not in points for step in steps)]
        return np.array(edge) * spacing_mm

    ours, theirs = surface_mm(prediction), surface_mm(reference)
    distances = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    pooled = sorted([*distances.min(axis=0), *distances.min(axis=1)])
    place = 0.95 * (len(pooled) - 1)
    below, above = pooled[math.floor(place)], pooled[math.ceil(place)]
    return below + (place - math.floor(place)) * (above - below)


def tumour(seed, shape=(155, 240, 240), centre=(80, 110, 130), radius=30.0, roughness=9.0):
    """A lobed blob in the shape of a BraTS volume, of the size of a whole tumour (about 100,000 voxels)."""
    rng = np.random.default_rng(seed)
    lobes = gaussian_filter(rng.standard_normal(tuple(size // 5 + 1 for size in shape)), 1.2)
    lobes = np.kron(lobes / lobes.std(), np.ones((5, 5, 5)))[tuple(map(slice, shape))]
    squares = [(np.arange(size) - middle) ** 2 for size, middle in zip(shape, centre, strict=True)]
    distance = np.sqrt(sum(np.ix_(*squares)))
    return distance + roughness * gaussian_filter(lobes, 2) < radius


@settings(max_examples=300, deadline=None)
@given(mask_pairs())
def test_equals_medpy(pair):
    prediction, reference, spacing_mm = pair
    scores = score_mask(prediction, reference, spacing_mm)
    assert scores["dice"] == pytest.approx(medpy.dc(prediction, reference), abs=1e-12)
    assert scores["hd95"] == pytest.approx(medpy.hd95(prediction, reference, spacing_mm), abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(mask_pairs())
def test_equals_all_pairs_of_surface_voxels(pair):
    assert score_mask(*pair)["hd95"] == pytest.approx(all_pairs_hd95(*pair), abs=1e-6)


@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("block_edges", [(1,), (3, 1), (9, 3, 1)])
def test_tuning_does_not_change_the_result(monkeypatch, reach, block_edges):
    """However much is left to the tree, and however it is blocked: blobs apart, interleaved, and mixed with noise."""
    rng = np.random.default_rng(0)
    shape, spacing_mm = (24, 30, 40), (2.0, 1.0, 0.7)
    blob = tumour(1, shape, centre=(11, 12, 12), radius=9, roughness=2)
    others = (
        np.roll(blob, (3, 5, 22), (0, 1, 2)),
        np.roll(blob, (0, 6, 3), (0, 1, 2)),
        blob | (rng.random(shape) < 0.01),
        rng.random(shape) < 0.3,
        np.ones(shape, dtype=bool),
    )
    monkeypatch.setattr(surface, "REACH", reach)
    monkeypatch.setattr(surface, "BLOCK_EDGES", block_edges)
    for other in others:
        expected = medpy.hd95(other, blob, spacing_mm)
        assert score_mask(other, blob, spacing_mm)["hd95"] == pytest.approx(expected, abs=1e-6)


def test_known_values():
    """Two single voxels, 3 and 4 apart along two axes; and a row, whose surface is its two ends, against one end."""
    prediction, reference = np.zeros((2, 8, 8), dtype=bool)
    prediction[1, 2], reference[4, 6] = True, True
    assert score_mask(prediction, reference, (1, 1)) == {"dice": 0.0, "hd95": 5.0}
    row = score_mask([1, 1, 1], [1, 0, 0], (2.0,))
    assert row == {"dice": 0.5, "hd95": pytest.approx(3.6)}  # of 0, 0 and 4 mm: 0.9 of the way to the last


def test_interior_voxels_are_no_surface():
    """A full cube in its array against the same with a cavity: the array's edge is surface, the core is not."""
    full = np.ones((7, 7, 7), dtype=bool)
    hollow = full.copy()
    hollow[2:5, 2:5, 2:5] = False
    # 218 edge voxels each, and the 54 around the cavity, at distance 1 from the edge: more than 5 % of all.
    assert score_mask(hollow, full, (1, 1, 1))["hd95"] == 1.0


@settings(max_examples=25, deadline=None)
@given(mask_pairs())
def test_symmetric(pair):
    prediction, reference, spacing_mm = pair
    assert score_mask(prediction, reference, spacing_mm) == score_mask(reference, prediction, spacing_mm)


@settings(max_examples=25, deadline=None)
@given(mask_pairs(), st.integers(0, 5), st.integers(0, 5))
def test_translation_does_not_matter(pair, before, after):
    """The array's edge counts as background, so that more background around the masks changes nothing."""
    prediction, reference, spacing_mm = pair
    padded = [np.pad(mask, (before, after)) for mask in (prediction, reference)]
    assert score_mask(*padded, spacing_mm) == score_mask(prediction, reference, spacing_mm)


@settings(max_examples=25, deadline=None)
@given(mask_pairs(), st.sampled_from((0.001, 0.5, 3.0, 1000.0)))
def test_hd95_scales_with_spacing_and_dice_does_not(pair, factor):
    prediction, reference, spacing_mm = pair
    scores = score_mask(prediction, reference, spacing_mm)
    scaled = score_mask(prediction, reference, [factor * value for value in spacing_mm])
    assert scaled["dice"] == scores["dice"]
    assert scaled["hd95"] == pytest.approx(factor * scores["hd95"], rel=1e-9)


def test_spacing_is_in_array_axis_order():
    """Two voxels apart along the first axis only: the first spacing counts, whatever the others are."""
    prediction, reference = np.zeros((2, 9, 9, 9), dtype=bool)
    prediction[2, 4, 4], reference[4, 4, 4] = True, True
    for spacing_mm in itertools.permutations((1.0, 3.0, 7.0)):
        assert score_mask(prediction, reference, spacing_mm)["hd95"] == 2 * spacing_mm[0]


def test_axis_order_and_memory_layout_do_not_matter():
    """Transposed arrays with transposed spacing, which is how (x, y, z) and (z, y, x) readers differ."""
    rng = np.random.default_rng(3)
    prediction, reference = rng.random((2, 12, 15, 18)) < 0.2
    spacing_mm = (2.0, 0.5, 1.0)
    expected = score_mask(prediction, reference, spacing_mm)
    transposed = score_mask(prediction.T, reference.T, spacing_mm[::-1])
    assert transposed == pytest.approx(expected, rel=1e-12)
    assert score_mask(np.asfortranarray(prediction), reference, spacing_mm) == expected
    assert score_mask(prediction[::-1, :, ::-1], reference[::-1, :, ::-1], spacing_mm) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_zeros_and_ones_are_a_mask(dtype):
    rng = np.random.default_rng(4)
    prediction, reference = rng.random((2, 9, 9)) < 0.4
    assert score_mask(prediction.astype(dtype), reference.astype(dtype), (1, 1)) == score_mask(
        prediction, reference, (1, 1)
    )


def test_inputs_are_left_alone():
    rng = np.random.default_rng(5)
    prediction, reference = rng.random((2, 9, 9, 9)) < 0.4
    before = prediction.copy(), reference.copy()
    score_mask(prediction, reference, (1, 1, 1))
    assert np.array_equal((prediction, reference), before)


def cpu_time_s(function, times):
    """Least CPU time of some calls: other processes disturb it little."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize(("shift", "least"), [((1, 0, 1), 100), ((2, 3, 1), 60), ((6, 6, 6), 12)])
def test_many_times_faster_than_medpy_on_a_tumour(shift, least):
    """On a BraTS volume, a good, a fair and a poor prediction of one whole tumour.

    A third to a quarter of the usual ratios is asked for, as machines differ.
    """
    reference, spacing_mm = tumour(0), (1.0, 1.0, 1.0)
    prediction = np.roll(reference, shift, (0, 1, 2))
    assert 60_000 < np.count_nonzero(reference) < 200_000
    medpy_s = cpu_time_s(lambda: medpy.hd95(prediction, reference, spacing_mm), 1)
    ours_s = cpu_time_s(lambda: score_mask(prediction, reference, spacing_mm), 5)
    assert medpy_s / ours_s > least, f"{ours_s * 1e3:.1f} ms against {medpy_s * 1e3:.0f} ms"
