"""Scores of one case: of one mask, or of all regions of a label map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bench.metrics import conventions, inputs
from bench.metrics.conventions import Convention, EmptyState
from bench.metrics.overlap import Overlap
from bench.metrics.surface import Floats, Mask, hd95

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
    measured = _measure("mask", predicted, expected, spacing, rule)
    return {"dice": measured.dice, "hd95": measured.hd95}


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
    measured = measure_case(prediction, reference, spacing_mm, regions, convention)
    return {m.region: {"dice": m.dice, "hd95": m.hd95} for m in measured}


def measure_case(
    prediction: npt.ArrayLike,
    reference: npt.ArrayLike,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]] = BRATS_REGIONS,
    convention: str = "brats",
) -> list[RegionMeasurement]:
    """Dice, HD95, volumes and empty state of each region of a label map, in the order of `regions`.

    Args:
        prediction: label map of whole numbers, 0 for background; any number of axes, at least one.
        reference: likewise, of the same shape.
        spacing_mm: distance between neighbouring voxels, in mm, one number per axis in ARRAY-AXIS ORDER: (z, y, x)
            for an array indexed [z, y, x].
        regions: name of each region and the labels it unites. Labels in no region are ignored.
        convention: what empty masks score, a name from `CONVENTIONS`.

    Raises:
        BenchError: an argument is not as described.
    """
    rule = conventions.convention(convention)
    inputs.check_regions(regions)
    predicted, expected = inputs.label_maps(prediction, reference)
    spacing = inputs.spacing(spacing_mm, predicted.ndim)

    box = _foreground_box((predicted != 0) | (expected != 0))
    predicted, expected = np.ascontiguousarray(predicted[box]), np.ascontiguousarray(expected[box])
    return [
        _measure(region, _unite(predicted, labels), _unite(expected, labels), spacing, rule)
        for region, labels in regions.items()
    ]


def _measure(region: str, prediction: Mask, reference: Mask, spacing_mm: Floats, rule: Convention) -> RegionMeasurement:
    # Cropping is exact. Nothing is counted outside the box of both masks, all surface voxels lie within it and
    # distances are differences of their positions. Nor does it change the surfaces: neighbours beyond the box
    # are background, as the array's edge is.
    box = _foreground_box(prediction | reference)
    prediction, reference = prediction[box], reference[box]
    overlap = Overlap.of(prediction, reference)
    match overlap.empty:
        case "neither":
            dice, hd95_mm = overlap.dice, hd95(prediction, reference, spacing_mm)
        case "both":
            dice, hd95_mm = rule.both_empty
        case _:
            dice, hd95_mm = rule.one_empty
    voxel_mm3 = float(spacing_mm.prod())
    return RegionMeasurement(
        region=region,
        dice=dice,
        hd95=hd95_mm,
        prediction_mm3=overlap.prediction * voxel_mm3,
        reference_mm3=overlap.reference * voxel_mm3,
        empty=overlap.empty,
    )


def _foreground_box(foreground: Mask) -> tuple[slice, ...]:
    """The smallest box that holds every set voxel; of size zero where there is none."""
    box = []
    for axis in range(foreground.ndim):
        others = tuple(other for other in range(foreground.ndim) if other != axis)
        occupied = np.flatnonzero(foreground.any(axis=others))
        span = slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0)
        box.append(span)
        # The later axes need to be searched only where the earlier ones are occupied.
        foreground = foreground[(slice(None),) * axis + (span,)]
    return tuple(box)


def _unite(label_map: inputs.LabelMap, labels: Sequence[int]) -> Mask:
    """Mask of the voxels that carry one of the labels; for a few labels much quicker than `np.isin`."""
    mask: Mask = label_map == labels[0]
    for label in labels[1:]:
        mask |= label_map == label
    return mask
