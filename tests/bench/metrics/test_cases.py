"""Cases of several regions: which voxels are in a region, empty masks, volumes, and requests that cannot be met."""

import math
import subprocess
import sys

import numpy as np
import pytest

from bench.errors import BenchError
from bench.metrics import (
    BRATS_REGIONS,
    CONVENTIONS,
    NSD_TOLERANCE_MM,
    RegionMeasurement,
    convention,
    measure_case,
    score_case,
    score_mask,
)

SPACING_MM = (1.0, 2.0, 0.5)


def label_map(seed, shape=(14, 12, 16)):
    """Labels 0 to 4 at random inside a box that leaves the array's edge free: 4 belongs to no region."""
    labels = np.zeros(shape, dtype=np.uint8)
    inner = labels[2:-3, 1:-2, 3:-1]
    inner[:] = np.random.default_rng(seed).integers(0, 5, inner.shape)
    return labels


@pytest.fixture
def pair():
    return label_map(0), label_map(1)


def test_brats_regions():
    assert dict(BRATS_REGIONS) == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_each_region_is_scored_as_its_mask(pair):
    prediction, reference = pair
    scores = score_case(prediction, reference, SPACING_MM)
    assert list(scores) == ["WT", "TC", "ET"]
    for region, labels in BRATS_REGIONS.items():
        expected = score_mask(np.isin(prediction, labels), np.isin(reference, labels), SPACING_MM)
        assert scores[region] == expected
        assert set(scores[region]) == {"dice", "hd95"}


def test_regions_of_ones_own(pair):
    prediction, reference = pair
    scores = score_case(prediction, reference, SPACING_MM, regions={"fourth": [4]})
    assert scores == {"fourth": score_mask(prediction == 4, reference == 4, SPACING_MM)}


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32])
def test_the_type_of_whole_numbers_does_not_matter(pair, dtype):
    expected = score_case(*pair, SPACING_MM)
    assert score_case(*(labels.astype(dtype) for labels in pair), SPACING_MM) == expected


def test_perfect_prediction(pair):
    scores = score_case(pair[0], pair[0], SPACING_MM)
    assert all(score == {"dice": 1.0, "hd95": 0.0} for score in scores.values())


@pytest.mark.parametrize(
    ("name", "predicted", "expected", "empty", "scores"),
    [
        ("brats", False, False, "both", (1.0, 0.0)),
        ("brats", False, True, "prediction", (0.0, 373.1286641)),
        ("brats", True, False, "reference", (0.0, 373.1286641)),
        ("segmamba", False, False, "both", (0.0, 50.0)),
        ("segmamba", False, True, "prediction", (0.0, 50.0)),
        ("segmamba", True, False, "reference", (0.0, 50.0)),
        ("brats", True, True, "neither", (1.0, 0.0)),
        ("segmamba", True, True, "neither", (1.0, 0.0)),
    ],
)
def test_empty_masks_score_what_the_convention_says(name, predicted, expected, empty, scores):
    """One region empty as stated, with the rest of the case filled, and the same for a mask alone."""
    prediction, reference = np.zeros((2, 6, 6, 6), dtype=np.int16)
    prediction[4], reference[5] = 2, 2
    prediction[1:3, 1:3, 1:3] = 3 * predicted
    reference[1:3, 1:3, 1:3] = 3 * expected
    (measured,) = measure_case(prediction, reference, (1, 1, 1), {"ET": (3,)}, name)
    assert measured.empty == empty
    assert (measured.dice, measured.hd95) == pytest.approx(scores, abs=1e-6)
    alone = score_mask(prediction == 3, reference == 3, (1, 1, 1), convention=name)
    assert alone == {"dice": measured.dice, "hd95": measured.hd95}


def test_case_without_any_foreground():
    nothing = np.zeros((4, 5, 6), dtype=np.uint8)
    assert score_case(nothing, nothing, (1, 1, 1)) == {region: {"dice": 1.0, "hd95": 0.0} for region in BRATS_REGIONS}
    assert {m.empty for m in measure_case(nothing, nothing, (1, 1, 1))} == {"both"}


def test_brats_is_the_default_convention():
    nothing = np.zeros((4, 4), dtype=bool)
    assert score_mask(nothing, nothing, (1, 1)) == score_mask(nothing, nothing, (1, 1), convention="brats")


def test_brats_penalty_is_the_diagonal_of_its_volume():
    assert CONVENTIONS["brats"].one_empty[1] == pytest.approx(math.sqrt(240**2 + 240**2 + 155**2), abs=1e-9)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_describe_themselves(name):
    """Their name, title and source go under every table."""
    known = convention(name)
    assert known.name == name
    assert known.title
    assert known.source


def test_volumes_are_voxels_times_spacing(pair):
    prediction, reference = pair
    for measured in measure_case(prediction, reference, SPACING_MM):
        labels = BRATS_REGIONS[measured.region]
        assert measured.prediction_mm3 == np.isin(prediction, labels).sum()  # 1 × 2 × 0.5 mm: one mm³ per voxel
        assert measured.reference_mm3 == np.isin(reference, labels).sum()
    (tripled,) = measure_case(prediction, reference, (2.0, 3.0, 0.5), {"ET": (3,)})
    assert tripled.reference_mm3 == 3 * (reference == 3).sum()


def test_shares_and_volume_error_are_of_voxels(pair):
    prediction, reference = pair
    for measured in measure_case(prediction, reference, SPACING_MM):
        ours, theirs = (np.isin(labels, BRATS_REGIONS[measured.region]) for labels in pair)
        assert measured.sensitivity == (ours & theirs).sum() / theirs.sum()
        assert measured.precision == (ours & theirs).sum() / ours.sum()
        assert measured.volume_error == pytest.approx(ours.sum() / theirs.sum() - 1, abs=1e-12)
        assert measured.volume_error == pytest.approx(measured.prediction_mm3 / measured.reference_mm3 - 1, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "expected", "share", "volume_error"),
    [(False, False, 1.0, 0.0), (False, True, 0.0, -1.0), (True, False, 0.0, math.nan)],
)
@pytest.mark.parametrize("name", CONVENTIONS)
def test_what_conventions_leave_open_is_the_same_under_all(name, predicted, expected, share, volume_error):
    prediction, reference = np.zeros((2, 6, 6, 6), dtype=np.int16)
    prediction[1:3, 1:3, 1:3] = 3 * predicted
    reference[1:3, 1:3, 1:3] = 3 * expected
    (measured,) = measure_case(prediction, reference, (1, 1, 1), {"ET": (3,)}, name)
    assert (measured.sensitivity, measured.precision, measured.nsd) == (share, share, share)
    assert measured.volume_error == pytest.approx(volume_error, nan_ok=True)


def test_surface_dice_is_at_one_millimetre_whatever_the_voxels():
    assert NSD_TOLERANCE_MM == 1.0
    reference = np.zeros((8, 8, 8), dtype=np.uint8)
    reference[2:6, 2:6, 2:6] = 3
    shifted = np.roll(reference, 1, axis=2)

    def nsd(*spacing_mm):
        return measure_case(shifted, reference, spacing_mm, {"ET": (3,)})[0].nsd

    assert nsd(1, 1, 1) == 1.0
    assert nsd(1, 1, 1.01) < 1.0
    assert nsd(2, 2, 0.5) == 1.0


def test_surface_dice_in_two_dimensions_and_in_four():
    flat = np.ones((5, 6), dtype=np.uint8)
    (measured,) = measure_case(flat, flat, (1, 1), {"all": (1,)})
    assert measured.nsd == 1.0
    (measured,) = measure_case(flat[None, None], flat[None, None], (1, 1, 1, 1), {"all": (1,)})
    assert math.isnan(measured.nsd)
    assert measured.hd95 == 0.0


def test_scores_are_the_measurements(pair):
    measured = measure_case(*pair, SPACING_MM)
    assert all(isinstance(m, RegionMeasurement) for m in measured)
    assert score_case(*pair, SPACING_MM) == {m.region: {"dice": m.dice, "hd95": m.hd95} for m in measured}


MASK = np.ones((3, 4), dtype=bool)
LABELS = np.ones((3, 4), dtype=int)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (lambda: score_mask(MASK, MASK.T, (1, 1)), ["(3, 4)", "(4, 3)"]),
        (lambda: score_mask(MASK, MASK, (1, 1, 1)), ["(1, 1, 1)", "3 number", "2 axes", "array-axis order"]),
        (lambda: score_mask(MASK, MASK, 1.0), ["1.0", "one number per axis"]),
        (lambda: score_mask(MASK, MASK, (1, 0)), ["(1, 0)", "positive"]),
        (lambda: score_mask(MASK, MASK, (1, math.nan)), ["nan", "finite"]),
        (lambda: score_mask(MASK, MASK, (math.inf, 1)), ["inf", "finite"]),
        (lambda: score_mask(MASK * 7, MASK, (1, 1)), ["prediction", "7", "score_case"]),
        (lambda: score_mask(MASK, MASK * 0.5, (1, 1)), ["reference", "0.5", "0 and 1"]),
        (lambda: score_mask(MASK * math.nan, MASK, (1, 1)), ["prediction", "nan"]),
        (lambda: score_mask(MASK, MASK.astype(str), (1, 1)), ["reference", "dtype"]),
        (lambda: score_mask(MASK[:0], MASK[:0], (1, 1)), ["(0, 4)", "one voxel"]),
        (lambda: score_mask(True, True, ()), ["()", "one axis"]),
        (lambda: score_mask(MASK, MASK, (1, 1), convention="bats"), ["'bats'", "'brats'", "segmamba"]),
        (lambda: score_case(LABELS, LABELS[1:], (1, 1)), ["(3, 4)", "(2, 4)"]),
        (lambda: score_case(LABELS, LABELS, (1,)), ["1 number", "2 axes", "array-axis order"]),
        (lambda: score_case(LABELS * 0.25, LABELS, (1, 1)), ["prediction", "0.25", "whole"]),
        (lambda: score_case(LABELS, LABELS * math.nan, (1, 1)), ["reference", "nan"]),
        (lambda: score_case(LABELS, LABELS * math.inf, (1, 1)), ["reference", "inf"]),
        (lambda: score_case(LABELS, LABELS, (1, 1), regions={}), ["no region"]),
        (lambda: score_case(LABELS, LABELS, (1, 1), regions={"ET": ()}), ["'ET'", "at least one label"]),
        (lambda: score_case(LABELS, LABELS, (1, 1), regions={"all": (0, 1)}), ["'all'", "background"]),
        (lambda: score_case(LABELS, LABELS, (1, 1), convention="nnunet"), ["'nnunet'", "brats", "segmamba"]),
    ],
)
def test_what_cannot_be_scored_is_refused_with_a_reason(request_, says):
    with pytest.raises(BenchError) as refused:
        request_()
    assert all(word in str(refused.value) for word in says), str(refused.value)


def test_import_is_light():
    """Scoring needs numpy and scipy alone, so that predictions can be scored where no network runs."""
    heavy = {"torch", "monai", "medpy", "nibabel", "pandas"}
    code = f"import sys, bench.metrics; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
