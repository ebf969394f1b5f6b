"""Checks of what a caller hands to the metrics. They run once, here; the modules that measure trust their inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.errors import BenchError
from bench.metrics.neighbours import Floats, Mask

LabelMap = npt.NDArray[np.integer[Any]]


def masks(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Mask, Mask]:
    """Both as boolean arrays of one shape; numbers are taken where all are 0 or 1.

    Raises:
        BenchError: other values, shapes that differ, no axis or no voxel.
    """
    predicted, expected = _same_grid(prediction, reference)
    return _mask("prediction", predicted), _mask("reference", expected)


def label_maps(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[LabelMap, LabelMap]:
    """Both as whole-numbered arrays of one shape; floats are taken where all are whole.

    Raises:
        BenchError: fractions, NaN or infinity, shapes that differ, no axis or no voxel.
    """
    predicted, expected = _same_grid(prediction, reference)
    return _label_map("prediction", predicted), _label_map("reference", expected)


def spacing(spacing_mm: Sequence[float], axes: int) -> Floats:
    """The spacing as an array of shape (axes,).

    Raises:
        BenchError: not one number per axis, or one that is not positive and finite.
    """
    values = np.asarray(spacing_mm, dtype=np.float64)
    if values.shape != (axes,):
        raise BenchError(
            f"spacing_mm is {spacing_mm}, {values.size} number(s), but the arrays have {axes} axes; expected one "
            "number per axis, in array-axis order: (z, y, x) for an array indexed [z, y, x]."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise BenchError(f"spacing_mm is {spacing_mm}; expected a positive, finite number of mm for each axis.")
    return values


def check_regions(regions: Mapping[str, Sequence[int]]) -> None:
    """Refuse a set of regions that cannot be scored.

    Raises:
        BenchError: no region, a region without labels, or one that claims the background.
    """
    if not regions:
        raise BenchError("There is no region to score; expected at least one, such as {'WT': (1, 2, 3)}.")
    for region, labels in regions.items():
        if not len(labels) or 0 in labels:
            raise BenchError(
                f"Region {region!r} has the labels {tuple(labels)}; expected at least one label, and not 0, which is "
                "the background."
            )


def check_lesionwise(axes: int) -> None:
    """Refuse what cannot be scored lesion by lesion.

    Raises:
        BenchError: the label maps are not volumes.
    """
    if axes != 3:
        raise BenchError(
            f"The label maps have {axes} axes; lesion-wise scores are defined for volumes of 3. Score whole volumes, "
            "or leave the challenge out."
        )


def _same_grid(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    predicted, expected = np.asarray(prediction), np.asarray(reference)
    for name, array in (("prediction", predicted), ("reference", expected)):
        if array.dtype.kind not in "biuf":
            raise BenchError(
                f"The {name} has dtype {array.dtype}; expected booleans, integers or whole-numbered floats."
            )
    if predicted.shape != expected.shape:
        raise BenchError(
            f"The prediction has shape {predicted.shape} but the reference has {expected.shape}; expected one shape. "
            "Resample the prediction to the reference's grid, and check that both have the same axis order."
        )
    if predicted.ndim == 0 or predicted.size == 0:
        raise BenchError(
            f"Prediction and reference have shape {predicted.shape}; expected at least one axis and one voxel."
        )
    return predicted, expected


def _mask(name: str, array: npt.NDArray[Any]) -> Mask:
    if array.dtype == np.bool_:
        return array
    mask: Mask = array == 1
    if not np.array_equal(mask, array):
        raise BenchError(
            f"The {name} holds the values {_listed(array)}; expected a boolean mask, or only 0 and 1. Score a label "
            "map with score_case, which takes the labels of each region."
        )
    return mask


def _label_map(name: str, array: npt.NDArray[Any]) -> LabelMap:
    if array.dtype.kind != "f":
        return array
    with np.errstate(invalid="ignore"):  # NaN and infinity turn into some integer, which they do not equal
        labels = array.astype(np.int64)
    if not np.array_equal(labels, array):
        raise BenchError(
            f"The {name} holds the values {_listed(array[labels != array])}; expected whole-numbered labels. Take the "
            "argmax of class scores, and resample label maps with nearest-neighbour interpolation."
        )
    return labels


def _listed(values: npt.NDArray[Any], most: int = 6) -> str:
    distinct = np.unique(values)
    listed = ", ".join(str(value) for value in distinct[:most])
    return listed if len(distinct) <= most else f"{listed}, … ({len(distinct)} distinct)"
