"""Hausdorff distance at the 95th percentile (HD95), by the definition of medpy's `hd95`.

The surface of a mask is what one erosion with the face neighbours (6 in 3D) takes away, the array's edge counting as
background. Each surface voxel of one mask has a distance to the nearest surface voxel of the other; HD95 is the 95th
percentile, linearly interpolated, of both directed lists pooled.

medpy finds these distances with two transforms of the whole volume. Three observations save most of that work and
change nothing in the result. A percentile depends on two order statistics, so a distance known to be shorter or longer
than both need not be known better. Most distances are a few voxels long, so looking at the neighbours of a voxel,
nearest first, finds them soonest. And voxels that lie close have close distances, so that a k-d tree, asked for one
voxel of a block, bounds the distances of all others in it.
"""

import numpy as np
from scipy.spatial import KDTree

from bench.metrics.neighbours import Floats, Indices, Mask, any_hit, extent, in_reach, shells

PERCENTILE = 95

# How far neighbours are looked at, in voxels of the finest axis: 514 neighbours in an isotropic 3D grid. One more would
# halve the time of masks that are just that far apart, and cost the others what it saves.
REACH = 5

# Edges of the blocks, in voxels of the finest axis, from coarse to fine. The last must be 1: a block of one voxel is
# bounded by its distance.
BLOCK_EDGES = (9, 3, 1)


def hd95(prediction: Mask, reference: Mask, spacing_mm: Floats) -> float:
    """95th percentile of the pooled surface distances between two masks, in mm.

    Args:
        prediction: boolean, any number of axes, at least one voxel set. Time and memory grow with the array, so crop it
            to what the two masks occupy.
        reference: boolean, of the same shape, at least one voxel set.
        spacing_mm: distance between neighbouring voxels along each array axis, in mm, shape (axes,).
    """
    reach = extent(REACH, spacing_mm)
    margin = np.maximum(reach, 1)
    padded = np.zeros((2, *(prediction.shape + 2 * margin)), dtype=bool)
    padded[:, *(slice(width, -width) for width in margin)] = prediction, reference
    shape = padded.shape[1:]
    strides = np.array(padded.strides[1:])  # bytes, which for booleans are steps of the flat index

    surfaces = [_surface(mask.ravel(), strides) for mask in padded]
    targets = surfaces[::-1]
    # A surface voxel that both masks share is at distance zero; the others search.
    pending = [np.flatnonzero(own & ~other) for own, other in zip(surfaces, targets, strict=True)]
    distances_mm = np.zeros(sum(int(np.count_nonzero(surface)) for surface in surfaces))
    settled = len(distances_mm) - sum(map(len, pending))
    # Those far from all targets, as scattered false positives are, need not look around.
    near = [in_reach(target, points, shape, reach) for points, target in zip(pending, targets, strict=True)]
    far = [points[~chosen] for points, chosen in zip(pending, near, strict=True)]
    pending = [points[chosen] for points, chosen in zip(pending, near, strict=True)]
    # The order statistics that the percentile interpolates, counted from 0 for the shortest distance.
    rank = int(PERCENTILE / 100 * (len(distances_mm) - 1))
    next_rank = min(rank + 1, len(distances_mm) - 1)

    for distance_mm, offsets in shells(REACH, spacing_mm)[1:]:
        if settled > next_rank:
            break
        distances_mm[settled:] = distance_mm  # at least; what the next shells find is overwritten
        steps = offsets @ strides
        pending = [points[~any_hit(target, points, steps)] for points, target in zip(pending, targets, strict=True)]
        settled = len(distances_mm) - sum(map(len, pending + far))

    if settled <= next_rank:
        searches = [
            _Search(_voxels(points, shape), _voxels(np.flatnonzero(target), shape), spacing_mm)
            for points, target in zip(map(np.concatenate, zip(pending, far, strict=True)), targets, strict=True)
            if len(points)
        ]
        distances_mm[settled:] = _order_statistics_mm(searches, max(rank - settled, 0), next_rank - settled)
    return float(np.percentile(distances_mm, PERCENTILE))


def _surface(mask: Mask, strides: Indices) -> Mask:
    """Voxels of a flattened mask with a face neighbour outside it.

    The mask must have a margin of background: then one stride away lies the neighbour, or, where the flat order wraps
    round to another row, margin on both sides.
    """
    interior = mask.copy()
    for stride in strides:
        interior[stride:] &= mask[:-stride]
        interior[:-stride] &= mask[stride:]
    return mask ^ interior


def _voxels(flat: Indices, shape: tuple[int, ...]) -> Indices:
    return np.column_stack(np.unravel_index(flat, shape))


class _Search:
    """Bounds on the distance from each of some voxels (n, axes) to the nearest of `targets` (m, axes)."""

    def __init__(self, voxels: Indices, targets: Indices, spacing_mm: Floats) -> None:
        self.voxels = voxels
        self.spacing_mm = spacing_mm
        self.tree = KDTree(targets * spacing_mm, balanced_tree=False, compact_nodes=False)
        self.least_mm = np.zeros(len(voxels))
        self.most_mm = np.full(len(voxels), np.inf)

    def narrow(self, edge: int, low_mm: float, high_mm: float) -> None:
        """Narrow those bounds that reach into [low_mm, high_mm], with one query for each block that holds any.

        From one voxel to another the distance to the nearest target changes by no more than the two are apart.
        """
        chosen = np.flatnonzero((self.most_mm >= low_mm) & (self.least_mm <= high_mm))
        if not len(chosen):
            return
        edges = np.maximum(edge * self.spacing_mm.min() / self.spacing_mm, 1).astype(np.intp)
        blocks = self.voxels[chosen] // edges
        keys = np.ravel_multi_index(tuple(blocks.T), tuple(blocks.max(axis=0) + 1))
        _, first, block_of = np.unique(keys, return_index=True, return_inverse=True)

        points_mm = self.voxels[chosen] * self.spacing_mm
        asked_mm = points_mm[first]
        found_mm = np.asarray(self.tree.query(asked_mm)[0])[block_of]
        apart_mm = np.sqrt(((points_mm - asked_mm[block_of]) ** 2).sum(axis=1))
        self.least_mm[chosen] = np.maximum(self.least_mm[chosen], found_mm - apart_mm)
        self.most_mm[chosen] = np.minimum(self.most_mm[chosen], found_mm + apart_mm)


def _order_statistics_mm(searches: list[_Search], rank: int, next_rank: int) -> Floats:
    """Upper bounds on the distances of all searches, pooled; those of the two ranks, counted from 0, are exact."""
    low_mm, high_mm = 0.0, np.inf
    for edge in BLOCK_EDGES:
        for search in searches:
            search.narrow(edge, low_mm, high_mm)
        # An order statistic of the distances lies between those of their bounds. A distance whose bounds lie outside
        # [low_mm, high_mm] is on the same side of both order statistics, however long it is.
        low_mm = np.partition(np.concatenate([search.least_mm for search in searches]), rank)[rank]
        high_mm = np.partition(np.concatenate([search.most_mm for search in searches]), next_rank)[next_rank]
    return np.concatenate([search.most_mm for search in searches])
