"""The patch merging of MONAI's SwinUNETR up to release 1.4, with which its authors' and most papers' networks ran."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Which of every second voxel along (D, H, W) follow each other in the merged channels. Two corners come twice and
# two never: a mistake that weights trained with it depend on.
_CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


class LegacyPatchMerging(nn.Module):
    """Halve a volume by putting eight voxels side by side, then a norm and a projection to twice the channels.

    The signature is that of MONAI's merging layers, which build it.

    Args:
        dim: channels.
        norm_layer: makes the norm.
        spatial_dims: 3.
    """

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, spatial_dims: int = 3) -> None:
        super().__init__()
        assert spatial_dims == 3
        self.norm = norm_layer(8 * dim)
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, dim) to (B, D/2, H/2, W/2, 2·dim); D, H and W even."""
        corners = torch.cat([x[:, d::2, h::2, w::2] for d, h, w in _CORNERS], dim=-1)
        merged: Tensor = self.reduction(self.norm(corners))
        return merged
