"""Planes of a volume as a radiologist sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError

Plane = Literal["axial", "coronal", "sagittal"]
_MARGIN_MM = 4.0
_DARK = 0.05  # of the range of intensities: less is taken for air


@dataclass(frozen=True)
class View:
    """One plane, rows from top to bottom and columns from left to right of the picture.

    Attributes:
        name: axial, coronal or sagittal, or the file's axes where no affine says what they are.
        image, reference, prediction: (rows, columns).
        spacing_mm: (rows, columns).
        sides: what lies at the left, right, top and bottom.
        index: of the slice along the axis that is looked along, in voxels of the array as it was given.
    """

    name: str
    image: NDArray[np.floating]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing_mm: tuple[float, float]
    sides: tuple[str, str, str, str]
    index: int

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return self.image.shape[0] * self.spacing_mm[0], self.image.shape[1] * self.spacing_mm[1]


def views(
    image: NDArray[np.floating],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing_mm: tuple[float, float, float],
    affine: NDArray[np.floating] | None = None,
    planes: tuple[Plane, ...] = ("axial", "coronal", "sagittal"),
) -> list[View]:
    """Orthogonal planes through the slices with the largest reference area, cropped to what is not air.

    Each plane has its own slice. Where the reference is empty the prediction decides, and where both are, the middle.
    Radiological convention: the patient's right is on the left of the picture, seen from the feet and from in front;
    sagittal planes look to the right of the picture with the patient's back.

    Args:
        image: (D, H, W).
        reference, prediction: (D, H, W) label maps.
        spacing_mm: (D, H, W).
        affine: (4, 4) voxel to world for the file's (x, y, z) indices, world axes to the right, front and top (RAS),
            as NIfTI's; oblique ones are shown along the nearest axes. None: nothing is known but that (D, H, W) are the
            file's (z, y, x), and the sides are named after these.

    Raises:
        BenchError: the arrays differ in shape, or are not three-dimensional.
    """
    if image.ndim != 3 or not image.shape == reference.shape == prediction.shape:
        raise BenchError(
            f"found an image of shape {image.shape}, a reference of {reference.shape} and a prediction of "
            f"{prediction.shape}; expected (D, H, W) alike for all. Give one channel, in the reference's grid."
        )
    axes, flips = _to_ras(affine)
    box = _head(image, reference, prediction, spacing_mm)
    made = []
    for plane in planes:
        along = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
        # World axes that become rows and columns.
        row, column = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[along]
        normal, rows, columns = axes[along], axes[row], axes[column]
        index = _largest(reference, prediction, normal)
        parts = [_cut(array, normal, index, box, rows, columns, flips[row], flips[column])
                 for array in (image, reference, prediction)]  # fmt: skip
        letters = (
            (("L", "R"), ("P", "A"), ("I", "S")) if affine is not None else (("x=0", "x"), ("y=0", "y"), ("z=0", "z"))
        )
        made.append(
            View(
                name=plane if affine is not None else f"{'xyz'[column]}{'xyz'[row]} plane",
                image=parts[0],
                reference=parts[1],
                prediction=parts[2],
                spacing_mm=(spacing_mm[rows], spacing_mm[columns]),
                sides=(letters[column][1], letters[column][0], letters[row][1], letters[row][0]),
                index=index,
            )
        )
    return made


def _to_ras(affine: NDArray[np.floating] | None) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For world axes x, y, z: which array axis (D, H, W) runs along it, and whether it runs against it."""
    if affine is None:
        return (2, 1, 0), (False, False, False)
    from nibabel.orientations import io_orientation

    found: Any = io_orientation(affine)  # a row per file axis x, y, z: world axis, direction
    by_world = {int(world): (2 - voxel, direction < 0) for voxel, (world, direction) in enumerate(found)}
    return tuple(by_world[n][0] for n in range(3)), tuple(by_world[n][1] for n in range(3))


def _largest(reference: NDArray[np.integer], prediction: NDArray[np.integer], axis: int) -> int:
    others = tuple(other for other in range(3) if other != axis)
    for label in (reference, prediction):
        areas = np.count_nonzero(label, axis=others)
        if areas.any():
            return int(areas.argmax())
    return reference.shape[axis] // 2


def _head(
    image: NDArray[np.floating],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing_mm: tuple[float, float, float],
) -> list[slice]:
    """The box that holds all labels and all that is brighter than air, and a little more."""
    low, high = float(image.min()), float(np.percentile(image, 99.5))
    shown = (image > low + _DARK * (high - low)) | (reference > 0) | (prediction > 0)
    box = []
    for axis in range(3):
        occupied = np.flatnonzero(shown.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(_MARGIN_MM / spacing_mm[axis]))
        if len(occupied):
            box.append(slice(max(occupied[0] - margin, 0), occupied[-1] + 1 + margin))
        else:
            box.append(slice(None))
    return box


def _cut(
    array: NDArray[Any],
    normal: int,
    index: int,
    box: list[slice],
    rows: int,
    columns: int,
    row_flipped: bool,
    column_flipped: bool,
) -> NDArray[Any]:
    place: list[Any] = list(box)
    place[normal] = index
    plane = array[tuple(place)]
    if rows > columns:  # the remaining axes are in the array's order
        plane = plane.T
    # RAS axes begin at the patient's left, back and bottom; pictures at the right, or the front, and the top.
    return plane[slice(None, None, 1 if row_flipped else -1), slice(None, None, 1 if column_flipped else -1)].copy()
