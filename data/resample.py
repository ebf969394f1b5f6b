"""Resampling of volumes between voxel spacings: cubic splines for images, linear votes for labels.

Grids are aligned at the outer faces of the volume, not at the centres of its first voxels, so no extent is lost. Where
one axis is much coarser than the others, values are not blended along it: slices 5 mm apart have little to say about
what lies between them. Both as in nnU-Net (Isensee et al., Nature Methods, 2021).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError

Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]

SPACING_TOLERANCE_MM = 1e-3
_ANISOTROPIC = 3.0  # ratio of the largest to the smallest spacing
_MOST_VOXELS = 2**31
_SLAB_VOXELS = 2**22


def resampled_shape(shape: Shape, spacing_mm: Spacing, target_mm: Spacing) -> Shape:
    """Extents (D, H, W) that a volume takes at another spacing, at least 1; an axis at its target keeps its own.

    Raises:
        DataError: that would be 2**31 voxels or more.
    """
    new = tuple(
        extent if abs(spacing - target) <= SPACING_TOLERANCE_MM else max(round(extent * spacing / target), 1)
        for extent, spacing, target in zip(shape, spacing_mm, target_mm, strict=True)
    )
    if math.prod(new) >= _MOST_VOXELS:
        raise DataError(
            f"{_times(shape)} voxels of {_times(spacing_mm)} mm would become {_times(new)} at {_times(target_mm)} mm; "
            f"expected fewer than {_MOST_VOXELS:,} voxels. Correct the spacing in the file's header if it is wrong, "
            "else choose a coarser spacing, or native (data.spacing_mm)"
        )
    return new[0], new[1], new[2]


def coarse_axis(spacing_mm: Spacing, target_mm: Spacing) -> int | None:
    """The axis along which values are not blended: the coarsest, where it is more than 3 times the finest.

    The spacing before counts first, then that after; None where two axes are the coarsest.
    """
    for spacing in (spacing_mm, target_mm):
        if max(spacing) / min(spacing) > _ANISOTROPIC:
            coarsest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample_image(image: NDArray[np.float32], shape: Shape, nearest_axis: int | None = None) -> NDArray[np.float32]:
    """One channel, (D, H, W), brought to ``shape`` by cubic splines; it stays in its range, as splines would not.

    Args:
        nearest_axis: take the nearest slice along this axis and interpolate within slices only.
    """
    if image.shape == shape:
        return image
    if nearest_axis is None:
        resampled = _zoom(image, shape)
    else:
        slices = np.moveaxis(image, nearest_axis, 0)
        needed, position = np.unique(_nearest(len(slices), shape[nearest_axis]), return_inverse=True)
        plane = tuple(extent for axis, extent in enumerate(shape) if axis != nearest_axis)
        resampled = np.moveaxis(np.stack([_zoom(slices[i], plane) for i in needed])[position], 0, nearest_axis)
    return np.clip(np.ascontiguousarray(resampled), image.min(), image.max())


def resample_label(label: NDArray[np.uint8], shape: Shape, nearest_axis: int | None = None) -> NDArray[np.uint8]:
    """A label map, (D, H, W), brought to ``shape``: each class interpolated linearly, the largest wins.

    Of equals the smaller value wins. It is made in slabs, so that no more than a few copies of a slab are held.

    Args:
        nearest_axis: take the nearest slice along this axis.
    """
    if label.shape == shape:
        return label
    (low_d, high_d, share_d), (low_h, high_h, share_h), (low_w, high_w, share_w) = (
        _neighbours(old, new, axis == nearest_axis)
        for axis, (old, new) in enumerate(zip(label.shape, shape, strict=True))
    )
    share_h, share_w = share_h[:, None], share_w[None]
    resampled = np.empty(shape, np.uint8)
    depth = max(_SLAB_VOXELS // max(shape[1] * shape[2], label.shape[1] * label.shape[2]), 1)
    for start in range(0, shape[0], depth):
        slab = slice(start, start + depth)
        low, high, share = label[low_d[slab]], label[high_d[slab]], share_d[slab, None, None]
        values = np.union1d(low, high)
        best = resampled[slab]
        best[:] = values[0]
        if len(values) == 1:
            continue
        most = np.zeros(best.shape, np.float32)
        for value in values:
            votes = (low == value) * (1 - share) + (high == value) * share
            votes = votes[:, low_h] * (1 - share_h) + votes[:, high_h] * share_h
            votes = votes[:, :, low_w] * (1 - share_w) + votes[:, :, high_w] * share_w
            larger = votes > most
            best[larger], most[larger] = value, votes[larger]
    return resampled


def _zoom(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    from scipy import ndimage

    if image.shape == shape:
        return image
    factors = [new / old for old, new in zip(image.shape, shape, strict=True)]
    return ndimage.zoom(image, factors, output=np.float32, order=3, mode="nearest", grid_mode=True)


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """The old voxel in which the centre of each new one lies."""
    return np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)


def _neighbours(old: int, new: int, nearest: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The old voxels on both sides of each new one's centre along one axis, and the share of the upper one."""
    if nearest:
        index = _nearest(old, new)
        return index, index, np.zeros(new, np.float32)
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = centre.astype(np.int64)
    return low, np.minimum(low + 1, old - 1), (centre - low).astype(np.float32)


def _times(values: tuple[float, ...]) -> str:
    return "×".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
