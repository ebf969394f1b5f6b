"""Filters that are one small matrix per axis: Gaussians, the prefilter of cubic splines, enlargement.

The matrices are what scipy makes of unit vectors, so that results are scipy's at every border. They are applied in
float64: it is exact whatever short products (TF32) others have switched on, and they are small against the image. A
product with a 200 × 200 matrix over 4 × 200³ voxels is 13 GFLOP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


def apply_along_axes(image: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply an image by one matrix along each of its three axes.

    Args:
        image: (C, d, h, w) float32.
        matrices: (D, d), (H, h) and (W, w) float64, on the CPU.

    Returns:
        (C, D, H, W) float32, on the image's device.
    """
    along_d, along_h, along_w = (to_device(matrix, image.device) for matrix in matrices)
    product = along_h @ (image.double() @ along_w.T)
    return (along_d @ product.flatten(2)).unflatten(2, product.shape[2:]).float()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor without waiting for the device: only out of pinned memory does a copy wait its turn there."""
    if device.type == "cuda":
        tensor = tensor if tensor.is_pinned() else tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@lru_cache(maxsize=32)
def gaussian_matrix(length: int, sigma: float, mode: Literal["reflect", "constant"]) -> Tensor:
    """(length, length) float64: `scipy.ndimage.gaussian_filter` along one axis, cut off at four sigma."""
    return _of_unit_vectors(length, lambda units: ndimage.gaussian_filter(units, (0, sigma), mode=mode))


@lru_cache(maxsize=256)
def spline_matrix(length: int) -> Tensor:
    """(length, length) float64: from samples to the coefficients of the cubic spline through them, mirrored ends."""
    return _of_unit_vectors(length, lambda units: ndimage.spline_filter1d(units, 3, axis=1, mode="mirror"))


@lru_cache(maxsize=256)
def enlarging_matrix(length: int, target: int) -> Tensor:
    """(target, length) float64: cubic enlargement as `skimage.transform.resize` does it with ``mode="edge"``."""
    return _of_unit_vectors(length, lambda units: _zoom(units, target, order=3))


@lru_cache(maxsize=256)
def nearest_indices(length: int, target: int) -> Tensor:
    """(target,) int64: which voxels `skimage.transform.resize` keeps with ``order=0``."""
    return _of_unit_vectors(length, lambda units: _zoom(units, target, order=0)).argmax(dim=1)


def _zoom(units: NDArray[np.float64], target: int, order: int) -> NDArray[np.float64]:
    factor = target / units.shape[1]
    return np.stack([ndimage.zoom(unit, factor, order=order, mode="nearest", grid_mode=True) for unit in units])


def _of_unit_vectors(length: int, filtered: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Tensor:
    """The matrix of a linear filter that works along the rows of an array."""
    return torch.from_numpy(np.ascontiguousarray(filtered(np.eye(length)).T))
