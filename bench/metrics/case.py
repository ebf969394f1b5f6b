"""Scores of one case: of one mask, or of all regions of a label map."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bench.metrics import conventions, inputs, lesionwise
from bench.metrics.boxes import foreground_box
from bench.metrics.conventions import Convention, EmptyState
from bench.metrics.lesionwise import Challenge, score_lesions
from bench.metrics.neighbours import Floats, Mask
from bench.metrics.overlap import Overlap
from bench.metrics.surface import hd95
from bench.metrics.surface_elements import NSD_TOLERANCE_MM, Surfaces

BRATS_REGIONS: Mapping[str, Sequence[int]] = MappingProxyType({"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)})
"""BraTS2023: whole tumour, tumour core and enhancing tumour, of the labels 1 necrotic core, 2 oedema, 3 enhancing."""


@dataclass(frozen=True)
class RegionMeasurement:
    """What was measured of one region of one case."""

    region: str
    dice: float
    """In [0, 1]; the convention's where `empty` is not "neither"."""
    hd95: float
    """In mm; the convention's where `empty` is not "neither"."""
    prediction_mm3: float
    """Volume of the prediction: voxels times the product of the spacings (for a 2D map: mm²)."""
    reference_mm3: float
    """Volume of the reference, likewise."""
    empty: EmptyState
    """Which of the two hold none of the region: "neither", "prediction", "reference" or "both"."""
    sensitivity: float = math.nan
    """Share of the reference that was found, also called recall, in [0, 1]; NaN where it was not measured.

    For this one and the next three, `bench.metrics.conventions` states what empty masks score.
    """
    precision: float = math.nan
    """Share of the prediction that is right, in [0, 1]."""
    nsd: float = math.nan
    """Surface Dice coefficient at `NSD_TOLERANCE_MM`, in [0, 1]; NaN for label maps of more than three axes."""
    volume_error: float = math.nan
    """(prediction − reference) / reference, signed: of their volumes."""
    lesion_dice: float | None = None
    """Mean Dice over lesions, see `bench.metrics.lesionwise`; None, as the next four, where no challenge applies."""
    lesion_hd95: float | None = None
    """Mean HD95 over lesions, in mm."""
    lesion_tp: int | None = None
    """Lesions found."""
    lesion_fp: int | None = None
    """Predicted components that belong to no lesion."""
    lesion_fn: int | None = None
    """Lesions missed."""


def score_mask(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    spacing_mm: Sequence[float],
    convention: str = "brats",
) -> dict[str, float]:
    """Dice and HD95 of one mask against its reference.

    Args:
        prediction: boolean, or numbers that are all 0 or 1; any number of axes, at least one.
        reference: likewise, of the same shape.
        spacing_mm: distance between neighbouring voxels, in mm, one number per axis in ARRAY-AXIS ORDER: (z, y, x)
            for an array indexed [z, y, x].
        convention: what empty masks score, a name from `CONVENTIONS`.

    Returns:
        {"dice": in [0, 1], "hd95": in mm}.

    Raises:
        BenchError: an argument is not as described.
    """
    rule = conventions.convention(convention)
    predicted, expected = inputs.masks(prediction, reference)
    spacing = inputs.spacing(spacing_mm, predicted.ndim)
    pair = _Pair.cropped(predicted, expected, spacing)
    dice, hd95_mm = pair.scores(rule)
    return {"dice": dice, "hd95": hd95_mm}


def score_case(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]] = BRATS_REGIONS,
    convention: str = "brats",
) -> dict[str, dict[str, float]]:
    """Dice and HD95 of each region of a label map; arguments and errors as for `measure_case`.

    Returns:
        {region: {"dice": in [0, 1], "hd95": in mm}}, in the order of `regions`.
    """
    rule = conventions.convention(convention)
    scores = {}
    for pair in _pairs(prediction, reference, spacing_mm, regions):
        dice, hd95_mm = pair.scores(rule)
        scores[pair.region] = {"dice": dice, "hd95": hd95_mm}
    return scores


def score_lesionwise(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    spacing_mm: Sequence[float],
    challenge: str = "GLI",
    regions: Mapping[str, Sequence[int]] = BRATS_REGIONS,
) -> dict[str, dict[str, float]]:
    """What each region of a label map scores lesion by lesion, as the BraTS challenges of 2023 ranked.

    The definition is in `bench.metrics.lesionwise`.

    Args:
        prediction: label map of whole numbers, 0 for background, three axes.
        reference: likewise, of the same shape.
        spacing_mm: distance between neighbouring voxels, in mm, one number per axis in ARRAY-AXIS ORDER: (z, y, x)
            for an array indexed [z, y, x]. It is rounded to single precision, as it stands in NIfTI files.
        challenge: whose settings apply, a name from `CHALLENGES`.
        regions: name of each region and the labels it unites. Labels in no region are ignored.

    Returns:
        {region: {"dice": in [0, 1], "hd95": in mm, "tp", "fp", "fn": counts of lesions}}, in the order of `regions`.

    Raises:
        BenchError: an argument is not as described.
    """
    rule = lesionwise.challenge(challenge)
    pairs = _pairs(prediction, reference, spacing_mm, regions)
    inputs.check_lesionwise(len(spacing_mm))
    return {pair.region: vars(score_lesions(pair.prediction, pair.reference, pair.spacing_mm, rule)) for pair in pairs}


def measure_case(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]] = BRATS_REGIONS,
    convention: str = "brats",
    challenge: str | None = None,
) -> list[RegionMeasurement]:
    """All that is measured of each region of a label map, in the order of `regions`.

    Args:
        prediction: label map of whole numbers, 0 for background; any number of axes, at least one.
        reference: likewise, of the same shape.
        spacing_mm: distance between neighbouring voxels, in mm, one number per axis in ARRAY-AXIS ORDER: (z, y, x)
            for an array indexed [z, y, x].
        regions: name of each region and the labels it unites. Labels in no region are ignored.
        convention: what empty masks score, a name from `CONVENTIONS`.
        challenge: by whose settings lesions are scored one by one, a name from `CHALLENGES`; None leaves that out.
            It asks for three axes.

    Raises:
        BenchError: an argument is not as described.
    """
    rule = conventions.convention(convention)
    settings = None if challenge is None else lesionwise.challenge(challenge)
    pairs = _pairs(prediction, reference, spacing_mm, regions)
    if settings is not None:
        inputs.check_lesionwise(len(spacing_mm))
    return [_measure(pair, rule, settings) for pair in pairs]


@dataclass(frozen=True)
class _Pair:
    """The masks of one region, cut to the box of both."""

    region: str
    prediction: Mask
    reference: Mask
    spacing_mm: Floats
    overlap: Overlap

    @classmethod
    def cropped(cls, prediction: Mask, reference: Mask, spacing_mm: Floats, region: str = "") -> "_Pair":
        # Cropping is exact. Nothing is counted outside the box of both masks, all surface lies within it and distances
        # are differences of positions. Nor does it change the surfaces: neighbours beyond the box are background, as
        # the array's edge is. Nor how lesions hang together: of dilations that meet, some meet within the box.
        box = foreground_box(prediction | reference)
        prediction, reference = prediction[box], reference[box]
        return cls(region, prediction, reference, spacing_mm, Overlap.of(prediction, reference))

    def scores(self, rule: Convention) -> tuple[float, float]:
        """Dice and HD95 in mm."""
        if (ruled := rule.scores(self.overlap.empty)) is not None:
            return ruled
        return self.overlap.dice, hd95(self.prediction, self.reference, self.spacing_mm)


def _pairs(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]],
) -> Iterator[_Pair]:
    """The regions of two label maps, made one at a time; the arguments are checked at once."""
    inputs.check_regions(regions)
    predicted, expected = inputs.label_maps(prediction, reference)
    spacing = inputs.spacing(spacing_mm, predicted.ndim)

    box = foreground_box((predicted != 0) | (expected != 0))
    predicted, expected = np.ascontiguousarray(predicted[box]), np.ascontiguousarray(expected[box])
    return (
        _Pair.cropped(_unite(predicted, labels), _unite(expected, labels), spacing, region)
        for region, labels in regions.items()
    )


def _measure(pair: _Pair, rule: Convention, challenge: Challenge | None) -> RegionMeasurement:
    overlap = pair.overlap
    dice, hd95_mm = pair.scores(rule)
    if overlap.empty == "neither":
        sensitivity, precision, nsd = overlap.sensitivity, overlap.precision, _nsd(pair)
    else:
        sensitivity = precision = nsd = conventions.empty_share(overlap.empty)
    voxel_mm3 = float(pair.spacing_mm.prod())
    measured = RegionMeasurement(
        region=pair.region,
        dice=dice,
        hd95=hd95_mm,
        prediction_mm3=overlap.prediction * voxel_mm3,
        reference_mm3=overlap.reference * voxel_mm3,
        empty=overlap.empty,
        sensitivity=sensitivity,
        precision=precision,
        nsd=nsd,
        volume_error=overlap.volume_error,
    )
    if challenge is None:
        return measured
    lesions = score_lesions(pair.prediction, pair.reference, pair.spacing_mm, challenge)
    return replace(measured, **{f"lesion_{name}": value for name, value in vars(lesions).items()})


def _nsd(pair: _Pair) -> float:
    if pair.prediction.ndim > 3:
        return math.nan  # surfaces of more dimensions have no elements to weigh
    return Surfaces(pair.prediction, pair.reference, pair.spacing_mm).dice(NSD_TOLERANCE_MM)


def _unite(label_map: inputs.LabelMap, labels: Sequence[int]) -> Mask:
    """Mask of the voxels that carry one of the labels; for a few labels much quicker than `np.isin`."""
    mask: Mask = label_map == labels[0]
    for label in labels[1:]:
        mask |= label_map == label
    return mask
