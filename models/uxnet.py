"""3D UX-Net (Lee et al. 2022, arXiv:2209.15076): depth-wise 7³ convolutions in place of windowed attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from models.decoder import UxNetDecoder
from models.norm import ChannelsFirstLayerNorm
from models.stochastic_depth import rising_rates

_KERNEL = 7
_EXPANSION = 4
_INITIAL_SCALE = 1e-6


class UxNet(nn.Module):
    """Convolutional encoder at 1/2, 1/4, 1/8 and 1/16 of the image, convolutional decoder with skips.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        feat_size: channels at each scale, from fine to coarse.
        depths: blocks at each scale.
        drop_path_rate: probability that the last block's branch is dropped for a sample; the first block's is 0 and
            those between lie on a line.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        feat_size: Sequence[int],
        depths: Sequence[int],
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.encoder = UxEncoder(in_channels, feat_size, depths, drop_path_rate)
        self.decoder = UxNetDecoder(in_channels, out_channels, feat_size)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 16."""
        logits: Tensor = self.decoder(image, self.encoder(image))
        return logits


class UxEncoder(nn.Module):
    """Stem, stages of `UxBlock` with halvings between them, and a layer norm on what leaves for the decoder."""

    def __init__(self, in_channels: int, widths: Sequence[int], depths: Sequence[int], drop_path_rate: float) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv3d(in_channels, widths[0], _KERNEL, stride=2, padding=_KERNEL // 2),
            ChannelsFirstLayerNorm(widths[0]),
        )
        downs = [
            nn.Sequential(ChannelsFirstLayerNorm(fine), nn.Conv3d(fine, coarse, kernel_size=2, stride=2))
            for fine, coarse in pairwise(widths)
        ]
        self.downs = nn.ModuleList([stem, *downs])
        self.stages = nn.ModuleList(
            nn.Sequential(*(UxBlock(width, rate) for rate in rates))
            for width, rates in zip(widths, rising_rates(drop_path_rate, depths), strict=True)
        )
        self.norms = nn.ModuleList(map(ChannelsFirstLayerNorm, widths))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, C, D, H, W) to one feature per scale, (B, widths[i], D / 2^(i+1), ...)."""
        features = []
        x = image
        for down, stage, norm in zip(self.downs, self.stages, self.norms, strict=True):
            x = stage(down(x))
            features.append(norm(x))
        return features


class UxBlock(nn.Module):
    """Depth-wise convolution, layer norm, and a perceptron on each channel by itself, scaled and added to the input.

    The paper calls the grouped perceptron depth-wise convolution scaling: no channel sees another within a block.
    """

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm = ChannelsFirstLayerNorm(channels)
        self.widen = nn.Conv3d(channels, _EXPANSION * channels, kernel_size=1, groups=channels)
        self.narrow = nn.Conv3d(_EXPANSION * channels, channels, kernel_size=1, groups=channels)
        self.scale = nn.Parameter(torch.full((channels,), _INITIAL_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        branch = self.narrow(nn.functional.gelu(self.widen(self.norm(self.depthwise(x)))))
        mixed: Tensor = x + self.drop_path(branch * self.scale.view(-1, 1, 1, 1))
        return mixed
