"""Where the voxels of a patch come from when it is rotated, scaled and deformed; plain numbers, no voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.augment.draw import Drawn, Elastic
from data.augment.elastic import largest_displacement

Triple = tuple[float, float, float]
Matrix = tuple[Triple, Triple, Triple]
Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Warp:
    """The voxel at p of a patch, counted from its centre, is read at ``centre + matrix @ (p + elastic)``.

    All in voxels and in the order (D, H, W).

    Attributes:
        matrix: rotation and scale.
        centre: of the patch, in the array that is read.
        first, last: the lowest and highest coordinates with a voxel; what is read outside them is zero.
        elastic: the displacements, or None.
    """

    matrix: Matrix
    centre: Triple
    first: Triple
    last: Triple
    elastic: Elastic | None

    def window(self, patch_size: tuple[int, int, int], margin: int) -> Window:
        """Start and stop on each axis of what the patch can reach, and ``margin`` voxels more, inside the volume."""
        bend = 0.0 if self.elastic is None else largest_displacement(self.elastic)
        half = (np.array(patch_size) - 1) / 2 + bend
        reach = np.abs(np.array(self.matrix)) @ half
        first, last = np.array(self.first), np.array(self.last)
        # A patch that lies wholly outside still needs an array to read from, if only to find nothing in it.
        start = np.clip(np.floor(self.centre - reach) - margin, first, last).astype(int)
        stop = np.clip(np.ceil(self.centre + reach) + margin, start, last).astype(int) + 1
        return tuple(zip(start.tolist(), stop.tolist(), strict=True))  # type: ignore[return-value]

    def counted_from(self, start: tuple[int, int, int]) -> Warp:
        """The same in an array that begins at ``start``."""
        return replace(
            self, centre=_less(self.centre, start), first=_less(self.first, start), last=_less(self.last, start)
        )


def make_warp(
    drawn: Drawn, spacing_mm: Triple, patch_size: tuple[int, int, int], start: Triple, shape: tuple[int, int, int]
) -> Warp:
    """The warp of a patch that begins at voxel ``start`` of a volume of ``shape`` voxels.

    The rotation is one in millimetres: voxels are stretched to their spacing, turned and shrunk again.
    """
    centre_d, centre_h, centre_w = (first + (length - 1) / 2 for first, length in zip(start, patch_size, strict=True))
    scale = 1.0 if drawn.scale is None else drawn.scale
    matrix = np.eye(3)
    if drawn.angles_degrees is not None:
        spacing = np.array(spacing_mm)
        matrix = _rotation(drawn.angles_degrees) * spacing / spacing[:, None]
    return Warp(
        matrix=tuple(tuple(row) for row in (scale * matrix).tolist()),  # type: ignore[arg-type]
        centre=(centre_d, centre_h, centre_w),
        first=(0.0, 0.0, 0.0),
        last=(shape[0] - 1.0, shape[1] - 1.0, shape[2] - 1.0),
        elastic=drawn.elastic,
    )


def _rotation(angles_degrees: Triple) -> NDArray[np.float64]:
    """Rotation about W, then H, then D by the opposite of each angle, as batchgenerators turns coordinates."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_degrees)):
        one, other = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        turned = turned @ turn
    return turned.T


def _less(triple: Triple, start: tuple[int, int, int]) -> Triple:
    return triple[0] - start[0], triple[1] - start[1], triple[2] - start[2]
