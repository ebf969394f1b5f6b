"""Elastic deformation: how far it can reach, and the displacements themselves."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from data.augment.draw import Elastic
from data.augment.linear import apply_along_axes, gaussian_matrix

_LARGEST_DEVIATION = 5.0


def largest_displacement(elastic: Elastic) -> float:
    """Five standard deviations of the displacements, in voxels, at which they are clamped.

    Of uniform noise in (-1, 1), whose variance is 1/3, smoothing leaves the sum of the squared weights. Close to the
    patch's border, where the noise ends, less is left.
    """
    radius = int(4 * elastic.sigma + 0.5)
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    weights = ndimage.gaussian_filter(impulse, elastic.sigma, mode="constant")
    kept = float((weights**2).sum()) ** 3
    return _LARGEST_DEVIATION * elastic.magnitude * math.sqrt(kept / 3)


def displacements(elastic: Elastic, patch_size: tuple[int, int, int], device: torch.device) -> Tensor:
    """(3, D, H, W) float32 offsets along D, H and W, in voxels.

    Uniform noise in (-1, 1) for every voxel of the patch, smoothed as by `scipy.ndimage.gaussian_filter` with zeros
    outside, times the magnitude (Simard et al., 2003, as batchgenerators has it).
    """
    generator = torch.Generator(device).manual_seed(elastic.seed)
    noise = torch.rand((3, *patch_size), generator=generator, device=device) * 2 - 1
    smooth = apply_along_axes(noise, [gaussian_matrix(length, elastic.sigma, "constant") for length in patch_size])
    limit = largest_displacement(elastic)
    return (smooth * elastic.magnitude).clamp(-limit, limit)
