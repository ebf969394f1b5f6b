"""Normalisation layers that networks share."""

from __future__ import annotations

from torch import Tensor, nn


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, D, H, W), each voxel by itself (ConvNeXt, arXiv:2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)
