"""Nearest-neighbour search by looking at the surroundings of each point, nearest first.

Points and targets are flat indices into one array, so that a voxel offset is a single step; the array needs a margin of
background as wide as the longest offset.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bench.metrics.boxes import foreground_box, grown

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


def extent(reach: float, spacing_mm: Floats) -> Indices:
    """The longest offset along each axis, in its voxels, that is no longer than ``reach`` voxels of the finest axis."""
    return (reach * spacing_mm.min() / spacing_mm).astype(np.intp)


def shells(reach: float, spacing_mm: Floats) -> tuple[tuple[float, Indices], ...]:
    """Voxel offsets, sorted into lengths.

    Args:
        reach: the greatest length, in voxels of the finest axis.
        spacing_mm: distance between neighbouring voxels along each array axis, in mm, shape (axes,).

    Returns:
        (length in mm, offsets of that length (n, axes)), shortest first, which is (0.0, the zero offset).
    """
    return _shells(reach, tuple(spacing_mm.tolist()))


@lru_cache(maxsize=16)
def _shells(reach: float, spacing: tuple[float, ...]) -> tuple[tuple[float, Indices], ...]:
    spacing_mm = np.array(spacing)
    most = extent(reach, spacing_mm)
    offsets = np.indices(tuple(2 * most + 1)).reshape(len(most), -1).T - most
    lengths_mm = np.sqrt(((offsets * spacing_mm) ** 2).sum(axis=1))
    # In voxels, rounded: lengths that are equal on paper may differ in their last bits.
    keys = np.round(lengths_mm / spacing_mm.min(), 12)
    lengths = np.unique(keys[keys <= reach])
    return tuple((float(lengths_mm[keys == key].min()), offsets[keys == key]) for key in lengths)


def any_hit(target: Mask, points: Indices, steps: Indices) -> Mask:
    """For each flat index in ``points``, whether any of the ``steps`` from it leads to a set element of ``target``."""
    hit: Mask = target[points + steps[0]]
    for step in steps[1:]:
        hit |= target[points + step]
    return hit


def in_reach(target: Mask, points: Indices, shape: tuple[int, ...], reach: Indices) -> Mask:
    """For each flat index in ``points``, whether it lies in the box of ``target``, grown by ``reach`` along each axis.

    From elsewhere no step within reach leads to a set element.
    """
    zone = np.zeros(shape, dtype=bool)
    zone[grown(foreground_box(target.reshape(shape)), reach, shape)] = True
    return zone.ravel()[points]
