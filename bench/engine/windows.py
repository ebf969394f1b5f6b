"""Where the windows of a sliding window lie, on a volume and on its mirror images, and what each voxel weighs.

As in MONAI's sliding window inference, whose results these are: a volume smaller than the window is padded with zeros,
the odd one at the high side; windows are evenly stepped and the last one is flush with the end. A mirror image is
padded and cut like any volume, so that its windows are no mirror images of those of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.fields import InferFields

Corner = tuple[int, int, int]

_GAUSSIAN_SIGMA = 0.125  # of the window's extent, as in MONAI and nnU-Net
_SMALLEST_WEIGHT = 1e-3


class Window(NamedTuple):
    """One window on one mirror image.

    Attributes:
        axes: of (C, D, H, W), along which the volume is mirrored.
        corner: first voxel (d, h, w) in the mirror image, less than 0 where that is padded.
    """

    axes: tuple[int, ...]
    corner: Corner


class WindowPlan:
    """The windows over all mirror images of one volume.

    Args:
        shape: (D, H, W) of the volume.
        patch_size: (d, h, w) of a window.
        fields: overlap, blending and flips.
        device: where the weights are kept.

    Attributes:
        windows: one mirror image after the other.
    """

    def __init__(
        self, shape: Sequence[int], patch_size: tuple[int, int, int], fields: InferFields, device: torch.device
    ) -> None:
        lacking = [max(patch - extent, 0) for extent, patch in zip(shape, patch_size, strict=True)]
        self._shape, self._patch = tuple(shape), patch_size
        self._before = [lack // 2 for lack in lacking]
        # The same on both sides, so that a padded volume can be mirrored and the odd voxel is high in every image.
        self._margins = [lack - lack // 2 for lack in lacking]
        grid = [extent + lack for extent, lack in zip(shape, lacking, strict=True)]
        starts = [window_starts(extent, patch, fields.overlap) for extent, patch in zip(grid, patch_size, strict=True)]
        flips = fields.mirror_axes
        images = [axes for count in range(len(flips) + 1) for axes in combinations([a + 1 for a in flips], count)]
        corners = [self._corner(start) for start in product(*starts)]
        self.windows = [Window(axes, corner) for axes in images for corner in corners]
        self._weights = window_weights(patch_size, fields.blend, device)
        # Every mirror image has the same windows, so one sum of weights serves all of them.
        total = self.pad(torch.zeros((1, *shape), device=device))
        for corner in corners:
            total[self.where(corner)] += self._weights
        self._share = total[0].mul_(len(images)).reciprocal_()

    def pad(self, volume: Tensor) -> Tensor:
        """A volume (C, D, H, W) with margins of zeros, if windows reach beyond it."""
        if not any(self._margins):
            return volume
        margins = [margin for margin in reversed(self._margins) for _ in range(2)]  # it counts from the last axis
        return F.pad(volume, margins)

    def unpad(self, volume: Tensor) -> Tensor:
        """A volume (C, D, H, W) without its margins."""
        inner = [slice(margin, margin + extent) for margin, extent in zip(self._margins, self._shape, strict=True)]
        return volume[(slice(None), *inner)]

    def where(self, corner: Corner) -> tuple[slice, ...]:
        """The window's place, all channels, in a padded mirror image."""
        firsts = [first + margin for first, margin in zip(corner, self._margins, strict=True)]
        return (slice(None), *(slice(first, first + patch) for first, patch in zip(firsts, self._patch, strict=True)))

    def shares(self, corner: Corner) -> Tensor:
        """What each voxel of a window contributes to the mean over windows and mirror images, (d, h, w)."""
        return self._weights * self._share[self.where(corner)[1:]]

    def _corner(self, start: Sequence[int]) -> Corner:
        d, h, w = (first - before for first, before in zip(start, self._before, strict=True))
        return d, h, w


def window_starts(extent: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis: evenly stepped, the last one flush with the end."""
    if extent <= patch:
        return [0]
    step = max(int(patch * (1 - overlap)), 1)
    return [*range(0, extent - patch, step), extent - patch]


def window_weights(patch_size: Sequence[int], blend: str, device: torch.device) -> Tensor:
    """Weight of each voxel of a window, (d, h, w): 1, or a Gaussian around its centre, never below 0.001."""
    weights = torch.ones(tuple(patch_size), device=device)
    if blend == "constant":
        return weights
    for axis, extent in enumerate(patch_size):
        offset = torch.arange(extent, device=device, dtype=torch.float32) - (extent - 1) / 2
        profile = torch.exp(-0.5 * (offset / (_GAUSSIAN_SIGMA * extent)) ** 2)
        weights = weights * profile.reshape([-1 if other == axis else 1 for other in range(3)])
    return weights.clamp_min(_SMALLEST_WEIGHT)
