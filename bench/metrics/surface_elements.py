"""Surface distances weighted by area: the surface Dice coefficient and the robust Hausdorff distance.

The surface of a mask lies between voxels, see `bench.metrics.marching_cubes`. Each cell that holds some is a surface
element (surfel): it lies at the cell's centre and weighs as much as its surface is large. The definitions are those of
Nikolov et al. (arXiv:1809.04430; JMIR 23(7):e26151, 2021) and of their google-deepmind/surface-distance.

That package transforms the whole volume, twice. Most distances are a few voxels long, so here the neighbours of each
surfel are looked at, nearest first, and only what they leave open is computed as the package does.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from bench.metrics.marching_cubes import FULL, areas_mm2, encode
from bench.metrics.neighbours import Floats, Indices, Mask, any_hit, extent, in_reach, shells

PERCENT = 95

NSD_TOLERANCE_MM = 1.0
"""At what tolerance the harness states the surface Dice coefficient (NSD): one voxel of BraTS."""

# How far neighbours are looked at, in voxels of the finest axis.
REACH = 5

# A share of the area as close as this to the percentage is judged as the reference judges it, rounding included.
_TIE = 1e-9


class Surfaces:
    """The surface elements of two masks, and how far each is from the other.

    Args:
        prediction: boolean, one to three axes, at least one voxel set. Time and memory grow with the array, so crop it
            to what the two masks occupy.
        reference: boolean, of the same shape, at least one voxel set.
        spacing_mm: distance between neighbouring voxels along each array axis, in mm, shape (axes,).
    """

    def __init__(self, prediction: Mask, reference: Mask, spacing_mm: Floats) -> None:
        self._spacing_mm = spacing_mm
        self._margin = extent(REACH, spacing_mm)
        # One more layer holds the cells that the mask's outermost voxels share with the outside.
        codes = [encode(np.pad(mask, [(width + 1,) * 2 for width in self._margin])) for mask in (prediction, reference)]
        self._shape = codes[0].shape
        self._strides = np.array(codes[0].strides)  # bytes, which for codes are steps of the flat index
        self._masks = [((code != 0) & (code != FULL)).ravel() for code in codes]
        self._points = [np.flatnonzero(mask) for mask in self._masks]
        areas = areas_mm2(spacing_mm)
        self._areas = [areas[code.ravel()[points]] for code, points in zip(codes, self._points, strict=True)]

    def dice(self, tolerance_mm: float) -> float:
        """Surface Dice coefficient at a tolerance, also called normalised surface distance (NSD), in [0, 1].

        The area of both surfaces that lies no farther than the tolerance from the other one, over all their area.
        """
        close = sum(areas[self._close(points, mask, tolerance_mm)].sum() for points, areas, mask in self._directions())
        return float(close / sum(areas.sum() for areas in self._areas))

    def robust_hausdorff(self) -> float:
        """The larger of the two distances, in mm, that `PERCENT` of the area of either surface do not exceed."""
        return max(self._percentile(*direction) for direction in self._directions())

    def _directions(self) -> list[tuple[Indices, Floats, Mask]]:
        """Surfels as flat indices, their areas, and where the other mask has surfels, both ways."""
        return list(zip(self._points, self._areas, self._masks[::-1], strict=True))

    def _close(self, points: Indices, target: Mask, tolerance_mm: float) -> Mask:
        close = np.zeros(len(points), dtype=bool)
        pending = np.flatnonzero(in_reach(target, points, self._shape, self._margin))
        for length_mm, offsets in shells(REACH, self._spacing_mm):
            if length_mm > tolerance_mm:
                return close
            hit = any_hit(target, points[pending], offsets @ self._strides)
            close[pending[hit]] = True
            pending = pending[~hit]
        # The tolerance reaches farther than the neighbours.
        pending = np.flatnonzero(~close)
        if len(pending):
            tree = KDTree(self._voxels(np.flatnonzero(target)) * self._spacing_mm, compact_nodes=False)
            close[pending] = tree.query(self._voxels(points[pending]) * self._spacing_mm)[0] <= tolerance_mm
        return close

    def _percentile(self, points: Indices, areas: Floats, target: Mask) -> float:
        goal, tie = PERCENT / 100 * areas.sum(), _TIE * areas.sum()
        near = in_reach(target, points, self._shape, self._margin)
        within, pending, weights = 0.0, points[near], areas[near]
        for length_mm, offsets in shells(REACH, self._spacing_mm):
            hit = any_hit(target, pending, offsets @ self._strides)
            within += weights[hit].sum()
            if within > goal + tie:
                return length_mm
            if within > goal - tie:
                break
            pending, weights = pending[~hit], weights[~hit]
        return self._percentile_of_all(points, areas, target)

    def _percentile_of_all(self, points: Indices, areas: Floats, target: Mask) -> float:
        """The same from the distances of all surfels, summed in the reference's order and so rounded as there."""
        cells = tuple(slice(width, size - width) for width, size in zip(self._margin, self._shape, strict=True))
        surface = target.reshape(self._shape)[cells]
        nearest = distance_transform_edt(~surface, self._spacing_mm, return_distances=False, return_indices=True)
        own = [index - width for index, width in zip(np.unravel_index(points, self._shape), self._margin, strict=True)]
        flat = np.ravel_multi_index(own, surface.shape)
        squares = np.zeros(len(points))
        for axis, spacing_mm in enumerate(self._spacing_mm):
            squares += ((nearest[axis].ravel()[flat] - own[axis]) * spacing_mm) ** 2
        distances_mm = np.sqrt(squares)
        order = np.lexsort((areas, distances_mm))
        shares = np.cumsum(areas[order]) / np.sum(areas[order])
        place = min(int(np.searchsorted(shares, PERCENT / 100)), len(order) - 1)
        return float(distances_mm[order[place]])

    def _voxels(self, points: Indices) -> Indices:
        return np.column_stack(np.unravel_index(points, self._shape))
