"""Scalar fields in space from which the phantom is drawn: smooth noise and signed distances.

Lengths are fractions of the volume's edge, coordinates run from -0.5 to 0.5 with axes (x, y, z) = (left, anterior,
superior), and signed distances are negative inside. All of it is elementwise arithmetic without BLAS, whose
rounding would vary with the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Field = NDArray[np.float32]
Point = tuple[float, float, float]
Points = tuple[Field, Field, Field]

# Standard deviation of cubic B-spline interpolated white noise, averaged over the cell: each axis keeps 151/315.
_SPLINE_STD = (151 / 315) ** 1.5


def grid(size: int) -> Points:
    """Coordinates of the voxels of an S x S x S volume whose index axes run (left, posterior, superior).

    Returns:
        three arrays of shapes (S, 1, 1), (1, S, 1), (1, 1, S), which broadcast to the volume.
    """
    ticks = ((np.arange(size) - (size - 1) / 2) / size).astype(np.float32)
    return ticks[:, None, None], -ticks[None, :, None], ticks[None, None, :]


@dataclass(frozen=True)
class SmoothNoise:
    """Band-limited Gaussian noise of zero mean and unit variance: a cubic B-spline over random coefficients.

    The coefficients do not depend on the volume's size, so that a phantom has the same shape at every resolution.

    Attributes:
        coefficients: (N, N, N) lattice.
        spacing: distance of the lattice's points, as a fraction of the volume's edge.
    """

    coefficients: Field
    spacing: float

    @classmethod
    def draw(cls, rng: np.random.Generator, spacing: float) -> SmoothNoise:
        count = int(1 / spacing) + 5
        lattice = rng.standard_normal((count, count, count), dtype=np.float32) / np.float32(_SPLINE_STD)
        return cls(lattice, spacing)

    def on_grid(self, size: int) -> Field:
        """The noise at every voxel, (S, S, S); separable, hence much cheaper than `at`."""
        field = self.coefficients
        for axis, ticks in enumerate(grid(size)):
            position = self._position(ticks.ravel())
            cell = position.astype(np.intp)
            along = [1, 1, 1]
            along[axis] = size
            weights = _cubic_weights(position - np.floor(position))
            parts = [np.take(field, cell + tap - 1, axis) * weights[tap].reshape(along) for tap in range(4)]
            field = parts[0] + parts[1] + parts[2] + parts[3]
        return field

    def at(self, points: Points) -> Field:
        """The noise at arbitrary points: three arrays of shape (N,) give one."""
        positions = [self._position(axis) for axis in points]
        return map_coordinates(self.coefficients, positions, np.float32, order=3, prefilter=False, mode="nearest")

    def _position(self, coordinate: Field) -> Field:
        return (coordinate + 0.5) / self.spacing + 1.5


def _cubic_weights(t: Field) -> Field:
    """Uniform cubic B-spline weights of the four neighbours at fraction t of the cell: (N,) to (4, N)."""
    u = 1 - t
    weights = np.stack([u * u * u, 4 - 3 * t * t * (2 - t), 4 - 3 * u * u * (2 - u), t * t * t]) / 6
    return weights.astype(np.float32)


def ellipsoid(points: Points, centre: Point, radii: Point) -> Field:
    """Signed distance to an ellipsoid, to first order in the distance."""
    offsets = [axis - mid for axis, mid in zip(points, centre, strict=True)]
    scaled = np.sqrt(sum((offset / radius) ** 2 for offset, radius in zip(offsets, radii, strict=True)))
    slope = np.sqrt(sum((offset / radius**2) ** 2 for offset, radius in zip(offsets, radii, strict=True)))
    return scaled * (scaled - 1) / (slope + 1e-6)


def tube(points: Points, knots: tuple[tuple[float, float, float, float], ...]) -> Field:
    """Signed distance to a chain of tapering capsules through `knots` of (x, y, z, radius)."""
    return np.minimum.reduce([_capsule(points, start, end) for start, end in pairwise(knots)])


def _capsule(points: Points, start: tuple[float, float, float, float], end: tuple[float, float, float, float]) -> Field:
    step = [b - a for a, b in zip(start[:3], end[:3], strict=True)]
    offsets = [axis - a for axis, a in zip(points, start[:3], strict=True)]
    along = sum(o * s for o, s in zip(offsets, step, strict=True)) / sum(s * s for s in step)
    along = np.clip(along, 0, 1)
    distance = np.sqrt(sum((o - along * s) ** 2 for o, s in zip(offsets, step, strict=True)))
    return distance - (start[3] + along * (end[3] - start[3]))


def smooth_union(a: Field, b: Field, blend: float) -> Field:
    """Union of two signed distances whose seam is rounded over the length `blend`."""
    overlap = np.maximum(blend - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap**2 / (4 * blend)


def smoothstep(field: Field, low: float, high: float) -> Field:
    """0 up to `low`, 1 from `high`, a cubic between."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def inside(distance: Field, softness: float) -> Field:
    """Membership in [0, 1] of a signed distance's inside, falling over `softness` on either side of its surface."""
    return smoothstep(-distance, -softness, softness)
