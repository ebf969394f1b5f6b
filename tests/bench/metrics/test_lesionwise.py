"""Lesion-wise scores: known cases, and against a slow reading of the definition, voxel set by voxel set."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, gaussian_filter, generate_binary_structure

from bench.errors import BenchError
from bench.metrics import CHALLENGES, measure_case, score_lesionwise
from bench.metrics.lesionwise import PENALTY_MM
from bench.metrics.surface_elements import Surfaces

SHAPE = (20, 24, 28)


def boxes(*corners, shape=SHAPE):
    """A label map of enhancing tumour in boxes, each ``((z, y, x), (depth, height, width))``."""
    labels = np.zeros(shape, dtype=np.uint8)
    for low, size in corners:
        labels[tuple(slice(start, start + length) for start, length in zip(low, size, strict=True))] = 3
    return labels


def score(prediction, reference, challenge="GLI", spacing_mm=(1.0, 1.0, 1.0)):
    return score_lesionwise(prediction, reference, spacing_mm, challenge, {"ET": (3,)})["ET"]


def counts(scores):
    return scores["tp"], scores["fp"], scores["fn"]


BIG = ((3, 3, 3), (5, 5, 5))  # 125 voxels
FAR = ((14, 17, 21), (4, 4, 4))
NOTHING = boxes()


def test_settings_of_the_challenges():
    stated = {name: (known.dilations, known.largest_ignored_mm3) for name, known in CHALLENGES.items()}
    assert stated == {"GLI": (3, 50), "SSA": (3, 50), "MEN": (1, 50), "MET": (1, 2), "PED": (3, 50)}


@pytest.mark.parametrize("challenge", CHALLENGES)
@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ((), (), {"dice": 1.0, "hd95": 0.0, "tp": 0, "fp": 0, "fn": 0}),
        ((BIG,), (BIG,), {"dice": 1.0, "hd95": 0.0, "tp": 1, "fp": 0, "fn": 0}),
        ((), (BIG, FAR), {"dice": 0.0, "hd95": 374.0, "tp": 0, "fp": 0, "fn": 2}),
        ((BIG, FAR), (), {"dice": 0.0, "hd95": 374.0, "tp": 0, "fp": 2, "fn": 0}),
        ((BIG,), (BIG, FAR), {"dice": 0.5, "hd95": 187.0, "tp": 1, "fp": 0, "fn": 1}),
        ((BIG, FAR), (BIG,), {"dice": 0.5, "hd95": 187.0, "tp": 1, "fp": 1, "fn": 0}),
        # One voxel of the prediction is enough for a false positive, one of the reference too few for a lesion.
        ((BIG, ((18, 22, 26), (1, 1, 1))), (BIG,), {"dice": 0.5, "hd95": 187.0, "tp": 1, "fp": 1, "fn": 0}),
        ((BIG,), (BIG, ((18, 22, 26), (1, 1, 1))), {"dice": 1.0, "hd95": 0.0, "tp": 1, "fp": 0, "fn": 0}),
        ((), (((18, 22, 26), (1, 1, 1)),), {"dice": 1.0, "hd95": 0.0, "tp": 0, "fp": 0, "fn": 0}),
        (
            (((18, 22, 26), (1, 1, 1)),),
            (((18, 22, 26), (1, 1, 1)),),
            {"dice": 1.0, "hd95": 0.0, "tp": 0, "fp": 0, "fn": 0},
        ),
    ],
)
def test_known_cases(challenge, prediction, reference, expected):
    assert score(boxes(*prediction), boxes(*reference), challenge) == expected


@pytest.mark.parametrize(
    ("challenge", "volume", "kept"), [("GLI", 50, False), ("GLI", 51, True), ("MET", 2, False), ("MET", 3, True)]
)
def test_a_lesion_at_the_threshold_is_ignored_and_one_above_it_is_not(challenge, volume, kept):
    missed = score(boxes(BIG), boxes(BIG, ((16, 12, 10), (1, 3, 17)) if volume == 51 else _row(volume)), challenge)
    assert counts(missed) == (1, 0, int(kept))
    assert missed["dice"] == (0.5 if kept else 1.0)


def _row(volume):
    return ((16, 12, 3), (2, 1, 25)) if volume == 50 else ((16, 12, 3), (1, 1, volume))


def test_volume_is_voxels_times_spacing_in_single_precision():
    """50 voxels of 1.25 × 1.6 × 0.5 mm are 50 mm³, but what a NIfTI header holds for 1.6 is a little more."""
    lesion = boxes(((5, 5, 2), (1, 2, 25)))
    assert counts(score(NOTHING, lesion, spacing_mm=(1.25, 1.6, 0.5))) == (0, 0, 1)
    assert counts(score(NOTHING, lesion, spacing_mm=(1.0, 2.0, 0.5))) == (0, 0, 0)


def test_what_matches_an_ignored_lesion_is_no_false_positive():
    speck = ((16, 20, 20), (1, 1, 2))
    assert score(boxes(BIG, speck), boxes(BIG, speck)) == {"dice": 1.0, "hd95": 0.0, "tp": 1, "fp": 0, "fn": 0}


@pytest.mark.parametrize(("challenge", "gap", "lesions"), [("MEN", 2, 1), ("MEN", 3, 2), ("GLI", 6, 1), ("GLI", 7, 2)])
def test_lesions_whose_dilations_touch_are_one(challenge, gap, lesions):
    reference = boxes(((3, 3, 3), (4, 4, 4)), ((3, 3, 7 + gap), (4, 4, 4)))
    assert counts(score(NOTHING, reference, challenge)) == (0, 0, lesions)


@pytest.mark.parametrize(("challenge", "reach"), [("MEN", 1), ("GLI", 3)])
def test_a_component_matches_a_lesion_that_it_comes_near_enough(challenge, reach):
    lesion = boxes(((3, 3, 3), (4, 4, 4)))
    for away in range(1, 6):
        found = score(boxes(((3, 3, 6 + away), (4, 4, 4))), lesion, challenge)
        assert counts(found) == ((1, 0, 0) if away <= reach else (0, 1, 1))
        assert found["dice"] == 0.0
        if away <= reach:
            assert 0 < found["hd95"] < 10


def test_a_dilation_reaches_edges_but_not_corners():
    """18 neighbours: after one step (1, 1, 0) is reached and (1, 1, 1) is not; after three (3, 3, 0) and (2, 2, 2)."""
    lesion = boxes(((4, 4, 4), (4, 4, 4)))

    def matches(offset, challenge):
        return score(boxes((tuple(7 + step for step in offset), (1, 1, 1))), lesion, challenge)["fp"] == 0

    assert matches((1, 1, 0), "MEN")
    assert not matches((1, 1, 1), "MEN")
    assert matches((3, 3, 0), "GLI")
    assert matches((2, 2, 2), "GLI")
    assert not matches((3, 2, 2), "GLI")


def test_a_component_may_match_two_lesions_and_counts_whole_for_each():
    """A bar of 336 voxels that covers two cubes of 64."""
    reference = boxes(((3, 3, 3), (4, 4, 4)), ((3, 3, 6 + 14), (4, 4, 4)))
    bar = boxes(((3, 3, 3), (4, 4, 21)))
    found = score(bar, reference)
    assert counts(found) == (2, 0, 0)
    assert found["dice"] == pytest.approx(2 * 64 / (336 + 64))


def test_all_components_that_touch_a_lesion_are_its_match():
    """A plate that the prediction has as two halves, and a speck beside it that joins neither."""
    plate = boxes(((4, 4, 4), (2, 8, 9)))
    halves = boxes(((4, 4, 4), (2, 8, 4)), ((4, 4, 9), (2, 8, 4)), ((9, 8, 8), (1, 1, 1)))
    found = score(halves, plate)
    assert counts(found) == (1, 1, 0)
    assert found["dice"] == pytest.approx(0.5 * 2 * 128 / (128 + 144))


def test_the_distance_is_that_of_matches_and_undilated_lesion():
    rng = np.random.default_rng(1)
    reference, spacing_mm = boxes(BIG, FAR), (1.0, 0.75, 2.0)
    prediction = np.roll(reference, (0, 1, 1), (0, 1, 2)) * (rng.random(SHAPE) < 0.9)
    expected = [
        Surfaces(*(np.where(half, labels, 0) == 3 for labels in (prediction, reference)), np.array(spacing_mm))
        for half in (np.indices(SHAPE)[0] < 12, np.indices(SHAPE)[0] >= 12)
    ]
    found = score(prediction, reference, spacing_mm=spacing_mm)
    assert found["hd95"] == pytest.approx(np.mean([pair.robust_hausdorff() for pair in expected]), abs=1e-9)


@pytest.mark.parametrize("corner", [(0, 0, 0), (15, 0, 23), (15, 19, 23)])
def test_lesions_at_the_arrays_edge(corner):
    lesion = boxes((corner, (5, 5, 5)))
    assert score(lesion, lesion) == {"dice": 1.0, "hd95": 0.0, "tp": 1, "fp": 0, "fn": 0}
    within = tuple(slice(start, start + 5) for start in corner)
    assert score(lesion[within], lesion[within]) == score(lesion, lesion)


GOLDEN = [
    (
        *("GLI", (1, 1, 1)),
        [((2, 4, 5), (6, 7, 8)), ((14, 17, 20), (4, 4, 5))],
        [((3, 3, 3), (5, 8, 9)), ((13, 16, 21), (5, 5, 4))],
        {"dice": 0.7075670498084291, "hd95": 1.5, "tp": 2, "fp": 0, "fn": 0},
    ),
    (
        *("MEN", (3, 0.7, 0.7)),
        [((2, 4, 5), (6, 7, 8)), ((14, 17, 20), (4, 4, 5)), ((0, 0, 0), (1, 1, 1))],
        [((3, 3, 3), (5, 8, 9)), ((13, 16, 21), (5, 5, 4)), ((3, 3, 14), (5, 5, 5))],
        {"dice": 0.43598141381332606, "hd95": 127.06666664282481, "tp": 2, "fp": 1, "fn": 0},
    ),
    (
        *("MET", (0.9375, 0.9375, 5)),
        [((2, 4, 5), (3, 3, 3)), ((8, 4, 5), (3, 3, 3)), ((14, 17, 20), (4, 4, 5))],
        [((2, 4, 5), (9, 2, 3)), ((13, 16, 21), (1, 1, 2)), ((16, 16, 24), (2, 2, 2))],
        {"dice": 0.3555555555555555, "hd95": 3.4864387368481196, "tp": 2, "fp": 0, "fn": 0},
    ),
    (
        *("PED", (1, 2, 0.5)),
        [((0, 0, 0), (20, 12, 9)), ((2, 20, 20), (3, 3, 3))],
        [((0, 0, 0), (20, 2, 28)), ((10, 9, 4), (6, 6, 20)), ((4, 18, 17), (7, 5, 6))],
        {"dice": 0.14151740651188996, "hd95": 19.12414379544733, "tp": 2, "fp": 0, "fn": 0},
    ),
]


@pytest.mark.parametrize(("challenge", "spacing_mm", "prediction", "reference", "expected"), GOLDEN)
def test_equals_what_the_challenges_program_computes(challenge, spacing_mm, prediction, reference, expected):
    """Its steps as of commit 0e272e6, with connected-components-3d 4.1 and surface-distance's table."""
    found = score(boxes(*prediction), boxes(*reference), challenge, spacing_mm)
    assert found == pytest.approx(expected, abs=1e-9)


def test_regions_are_scored_apart():
    reference, prediction = boxes(BIG, FAR), boxes(BIG)
    reference[reference == 3], reference[3:8, 3:8, 3:8] = 2, 3
    scores = score_lesionwise(prediction, reference, (1, 1, 1))
    assert list(scores) == ["WT", "TC", "ET"]
    assert [counts(scores[region]) for region in scores] == [(1, 0, 1), (1, 0, 0), (1, 0, 0)]


def test_a_measured_case_holds_the_same_scores():
    reference, prediction = boxes(BIG, FAR), np.roll(boxes(BIG, FAR), 2, axis=1)
    scores = score_lesionwise(prediction, reference, (1, 1, 1), "MET")
    for found in measure_case(prediction, reference, (1, 1, 1), challenge="MET"):
        stated = {"dice": found.lesion_dice, "hd95": found.lesion_hd95, "tp": found.lesion_tp}
        assert {**stated, "fp": found.lesion_fp, "fn": found.lesion_fn} == scores[found.region]
    for found in measure_case(prediction, reference, (1, 1, 1)):
        assert {found.lesion_dice, found.lesion_hd95, found.lesion_tp, found.lesion_fp, found.lesion_fn} == {None}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (lambda: score(NOTHING, NOTHING, "GLY"), ["'GLY'", "did you mean 'GLI'", "MET"]),
        (lambda: measure_case(NOTHING, NOTHING, (1, 1, 1), challenge="2021"), ["'2021'", "GLI, SSA, MEN, MET, PED"]),
        (lambda: score(NOTHING[0], NOTHING[0], spacing_mm=(1, 1)), ["2 axes", "leave the challenge out"]),
        (lambda: measure_case(NOTHING[0], NOTHING[0], (1, 1), challenge="GLI"), ["2 axes"]),
        (lambda: score(NOTHING, NOTHING[1:]), ["(20, 24, 28)", "(19, 24, 28)"]),
        (lambda: score(NOTHING, NOTHING, spacing_mm=(1, 1)), ["2 number(s)", "3 axes"]),
    ],
)
def test_what_cannot_be_scored_is_refused_with_a_reason(request_, says):
    with pytest.raises(BenchError) as refused:
        request_()
    assert all(word in str(refused.value) for word in says), str(refused.value)


def together(voxels):
    """A set of voxels, as a list of sets that hang together by faces, edges or corners."""
    found, left = [], set(voxels)
    steps = [tuple(step) for step in np.argwhere(np.ones((3, 3, 3))) - 1]
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            here = edge.pop()
            part.add(here)
            around = {tuple(map(sum, zip(here, step, strict=True))) for step in steps} & left
            left -= around
            edge += around
        found.append(part)
    return found


def by_definition(prediction, reference, spacing_mm, rule):
    """Lesion by lesion on sets of voxels and whole arrays."""

    def voxels(mask):
        return set(map(tuple, np.argwhere(mask).tolist()))

    def mask(points):
        full = np.zeros(reference.shape, dtype=bool)
        full[tuple(np.array(sorted(points)).T)] = True
        return full

    eighteen = generate_binary_structure(3, 2)
    components = together(voxels(prediction))
    touched, pairs, tp, fn = set(), [], 0, 0
    for grown in together(voxels(binary_dilation(reference, eighteen, rule.dilations))):
        lesion = grown & voxels(reference)
        near = voxels(binary_dilation(mask(lesion), eighteen, rule.dilations))
        matches = [place for place, component in enumerate(components) if component & near]
        touched |= set(matches)
        if len(lesion) * math.prod(spacing_mm) <= rule.largest_ignored_mm3:
            continue
        tp, fn = tp + bool(matches), fn + (not matches)
        union = set().union(*(components[place] for place in matches))
        dice = 2 * len(union & lesion) / (len(union) + len(lesion))
        distance = Surfaces(mask(union), mask(lesion), np.array(spacing_mm)).robust_hausdorff() if union else PENALTY_MM
        pairs.append((dice, distance))
    fp = len(components) - len(touched)
    pairs += [(0.0, PENALTY_MM)] * fp
    dice, hd95 = np.mean(pairs, axis=0) if pairs else (1.0, 0.0)
    return {"dice": dice, "hd95": hd95, "tp": tp, "fp": fp, "fn": fn}


@st.composite
def lesion_pairs(draw):
    """Specks, boxes, sparse noise or blobs; the prediction often a shifted reference with some voxels turned."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(*[st.integers(4, 18)] * 3))

    def some():
        mask = np.zeros(shape, dtype=bool)
        match rng.integers(4):
            case 0:
                mask.flat[rng.integers(mask.size, size=rng.integers(10))] = True
            case 1:
                for _ in range(rng.integers(1, 6)):
                    mask[tuple(slice(low, low + rng.integers(1, 7)) for low in rng.integers(shape))] = True
            case 2:
                mask = rng.random(shape) < rng.uniform(0.001, 0.05)
            case _:
                field = gaussian_filter(rng.standard_normal(shape), 1.2)
                mask = field > np.quantile(field, rng.uniform(0.7, 0.99))
        return mask

    prediction, reference = some(), some()
    if draw(st.booleans()):
        prediction = np.roll(reference, rng.integers(-3, 4, 3), (0, 1, 2))
        prediction.flat[rng.integers(prediction.size, size=rng.integers(4))] ^= True
    return prediction, reference


@settings(max_examples=120, deadline=None)
@given(
    lesion_pairs(),
    st.sampled_from([(1.0, 1.0, 1.0), (0.5, 0.5, 2.0), (2.5, 0.75, 1.0)]),
    st.sampled_from(sorted(CHALLENGES)),
)
def test_equals_the_definition(pair, spacing_mm, challenge):
    expected = by_definition(*pair, spacing_mm, CHALLENGES[challenge])
    found = score(*(3 * mask.astype(np.uint8) for mask in pair), challenge, spacing_mm)
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(lesion_pairs(), st.integers(0, 4), st.integers(0, 4))
def test_translation_and_axis_order_do_not_matter(pair, before, after):
    labels = [3 * mask.astype(np.uint8) for mask in pair]
    expected = score(*labels, spacing_mm=(1, 0.5, 2))
    assert score(*(np.pad(label, (before, after)) for label in labels), spacing_mm=(1, 0.5, 2)) == expected
    transposed = score(*(label.T for label in labels), spacing_mm=(2, 0.5, 1))
    assert counts(transposed) == counts(expected)
    assert transposed["dice"] == pytest.approx(expected["dice"], abs=1e-12)


def test_a_case_of_a_challenges_size_is_measured_quickly():
    """Nested regions of 100,000, 40,000 and 8,000 voxels, moved by two or three: 0.08 s where this was written."""
    distance = np.sqrt(sum(np.ix_(*((np.arange(size) - size / 2) ** 2 for size in (155, 240, 240)))))
    ridges = 2 * np.sin(np.arange(155) / 3)[:, None, None]
    reference = np.select([distance + ridges < radius for radius in (12, 21, 29)], [3, 1, 2], 0).astype(np.uint8)
    prediction = np.roll(reference, (2, 3, 2), (0, 1, 2))
    spent_s = []
    for _ in range(3):
        begun = time.process_time()
        measure_case(prediction, reference, (1, 1, 1), challenge="GLI")
        spent_s.append(time.process_time() - begun)
    assert min(spent_s) < 0.4
