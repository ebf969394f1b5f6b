"""Image and label read at the coordinates of a warp, in one interpolation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from data.augment.elastic import displacements
from data.augment.linear import apply_along_axes, spline_matrix
from data.augment.warp import Warp

# What a cut leaves of the volume changes the spline's coefficients k voxels from its border by 0.268^k of the values
# there, and one voxel beyond the coordinate is read: at 13 voxels 1.4e-7 is left, as much as float32 resolves.
MARGIN_VOXELS = {1: 0, 3: 13}
_ONE_HOT_VOXELS = 2**26  # 256 MiB


def coordinates(warp: Warp, patch_size: tuple[int, int, int], device: torch.device) -> Tensor:
    """(3, D, H, W) float32: where each voxel of the patch is read, along D, H and W."""
    positions = []
    for axis, length in enumerate(patch_size):
        shape = [1, 1, 1]
        shape[axis] = length
        positions.append((torch.arange(length, device=device, dtype=torch.float32) - (length - 1) / 2).view(shape))
    if warp.elastic is not None:
        bent = displacements(warp.elastic, patch_size, device)
        positions = [position + offset for position, offset in zip(positions, bent, strict=True)]
    return torch.stack(
        [
            (centre + row[0] * positions[0] + row[1] * positions[1] + row[2] * positions[2]).expand(patch_size)
            for centre, row in zip(warp.centre, warp.matrix, strict=True)
        ]
    )


def outside(warp: Warp, where: Tensor) -> Tensor:
    """(D, H, W) bool: coordinates (3, D, H, W) that lie off the volume."""
    off = torch.zeros(where.shape[1:], dtype=torch.bool, device=where.device)
    for axis, (first, last) in enumerate(zip(warp.first, warp.last, strict=True)):
        off |= (where[axis] < first) | (where[axis] > last)
    return off


def resample_image(image: Tensor, where: Tensor, order: int) -> Tensor:
    """Interpolate an image by the spline of an order, as `scipy.ndimage.map_coordinates` does inside the image.

    A cubic B-spline weighs 64 coefficients. Between two neighbours the weights of each axis are those of a linear
    interpolation at a displaced place, so 8 trilinear look-ups do (Sigg and Hadwiger, GPU Gems 2, chapter 20). Beyond
    the image it is mirrored about its outermost voxels.

    Args:
        image: (C, d, h, w) float32.
        where: (3, D, H, W) float32, in voxels.
        order: 1 or 3.

    Returns:
        (C, D, H, W) float32.
    """
    size = tuple(image.shape[1:])
    if order == 1:
        return _look_up(image, _grid(where, size))
    # One channel at a time: float64 copies of an enlarged cut would be the largest thing that augmentation holds.
    matrices = [spline_matrix(length) for length in size]
    coefficients = torch.cat([apply_along_axes(channel, matrices) for channel in image.split(1)])
    whole = where.floor()
    part = where - whole
    # Weights of the four coefficients around a coordinate; the outer two with their inner neighbour make a pair.
    outer_left = (1 - part) ** 3 / 6
    inner_left = 2 / 3 - part**2 * (1 - part / 2)
    outer_right = part**3 / 6
    left = outer_left + inner_left
    pairs = (
        (left, _normalised(whole - 1 + inner_left / left, size)),
        (1 - left, _normalised(whole + 1 + outer_right / (1 - left), size)),
    )
    result = torch.zeros((len(image), *where.shape[1:]), device=image.device)
    grid = torch.empty((*where.shape[1:], 3), device=image.device)
    for weight_d, place_d in pairs:
        grid[..., 2] = place_d[0]
        for weight_h, place_h in pairs:
            grid[..., 1] = place_h[1]
            for weight_w, place_w in pairs:
                grid[..., 0] = place_w[2]
                result.addcmul_(_look_up(coefficients, grid), weight_d[0] * weight_h[1] * weight_w[2])
    return result


def resample_label(label: Tensor, where: Tensor, classes: int) -> Tensor:
    """Interpolate each class linearly, as a mask, and take the largest; of equals the lowest.

    Args:
        label: (d, h, w) uint8, each below ``classes``.
        where: (3, D, H, W) float32, in voxels.
        classes: how many there are, background included.

    Returns:
        (D, H, W) uint8.
    """
    grid = _grid(where, tuple(label.shape))
    best = torch.full(where.shape[1:], -1.0, device=label.device)
    found = torch.zeros(where.shape[1:], dtype=torch.uint8, device=label.device)
    at_once = max(1, _ONE_HOT_VOXELS // label.numel())
    for first in range(0, classes, at_once):
        values = torch.arange(first, min(first + at_once, classes), dtype=torch.uint8, device=label.device)
        share, index = _look_up((label == values.view(-1, 1, 1, 1)).float(), grid).max(dim=0)
        better = share > best
        found = torch.where(better, (index + first).to(torch.uint8), found)
        best = torch.where(better, share, best)
    return found


def _look_up(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(image[None], grid[None], padding_mode="reflection", align_corners=True)[0]


def _grid(where: Tensor, size: tuple[int, ...]) -> Tensor:
    return _normalised(where, size).flip(0).movedim(0, -1).contiguous()


def _normalised(where: Tensor, size: tuple[int, ...]) -> Tensor:
    """Coordinates in which -1 and 1 are the centres of an axis's outermost voxels."""
    return torch.stack([axis * (2 / max(length - 1, 1)) - 1 for axis, length in zip(where, size, strict=True)])
