"""SegMamba as equation 1 of its paper reads (Xing et al. 2024, arXiv:2401.13560v1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.decoder import UxNetDecoder
from models.mamba import Mamba
from models.norm import ChannelsFirstLayerNorm


class SegMamba(nn.Module):
    """State-space encoder at 1/2, 1/4, 1/8 and 1/16 of the image, convolutional decoder with skips.

    Args:
        in_channels: number of image channels; divides `feat_size[0]`.
        out_channels: number of logits per voxel.
        feat_size: channels at each scale, from fine to coarse.
        depths: blocks at each scale.
        d_state: see `Mamba`.
        d_conv: see `Mamba`.
        expand: see `Mamba`.
        mlp_ratio: hidden channels of a block's perceptron per channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        feat_size: Sequence[int],
        depths: Sequence[int],
        d_state: int,
        d_conv: int,
        expand: int,
        mlp_ratio: int,
    ) -> None:
        super().__init__()
        stages = [
            nn.Sequential(*(MambaBlock(width, Mamba(width, d_state, d_conv, expand), mlp_ratio) for _ in range(depth)))
            for width, depth in zip(feat_size, depths, strict=True)
        ]
        self.encoder = Encoder(in_channels, feat_size, stages)
        self.decoder = UxNetDecoder(in_channels, out_channels, feat_size)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 16."""
        logits: Tensor = self.decoder(image, self.encoder(image))
        return logits


class Encoder(nn.Module):
    """Depth-wise stem, then stages that see the volume as one sequence, with down-sampling between them."""

    def __init__(self, in_channels: int, widths: Sequence[int], stages: Sequence[nn.Module]) -> None:
        super().__init__()
        stem = nn.Conv3d(in_channels, widths[0], kernel_size=7, stride=2, padding=3, groups=in_channels)
        downs = [
            nn.Sequential(ChannelsFirstLayerNorm(fine), nn.Conv3d(fine, coarse, kernel_size=2, stride=2))
            for fine, coarse in pairwise(widths)
        ]
        self.downs = nn.ModuleList([stem, *downs])
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, C, D, H, W) to one feature per scale, (B, widths[i], D / 2^(i+1), ...)."""
        features = []
        x = image
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = down(x)
            x = as_volume(stage(as_tokens(x)), x.shape[2:])
            features.append(x)
        return features


class MambaBlock(nn.Module):
    """Equation 1: z' = Mamba(LN(z)) + z, then z'' = MLP(LN(z')) + z'.

    Args:
        dim: channels of the tokens.
        mamba: the mixing layer, from tokens (B, L, dim) to the same shape.
        mlp_ratio: hidden channels of the perceptron per channel.
    """

    def __init__(self, dim: int, mamba: nn.Module, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mamba = mamba
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, dim) to the same shape."""
        tokens = self.mamba(self.norm1(tokens)) + tokens
        mixed: Tensor = self.mlp(self.norm2(tokens)) + tokens
        return mixed


def as_tokens(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) to tokens (B, D·H·W, C), W fastest."""
    return volume.flatten(2).mT


def as_volume(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Tokens (B, D·H·W, C) to (B, C, D, H, W) for `size` (D, H, W): undoes `as_tokens`."""
    return tokens.mT.unflatten(2, size)
