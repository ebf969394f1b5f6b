"""TransBTS (Wang et al. 2021, arXiv:2103.04430): a U-Net with a transformer over its coarsest features."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NORM_GROUPS = 8
_STEM_DROPOUT = 0.2
_BLOCKS = (1, 2, 2, 4)  # at full size, 1/2, 1/4 and 1/8


class TransBts(nn.Module):
    """Convolutional encoder to 1/8 of the image, transformer over the voxels there, convolutional decoder with skips.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: (D, H, W) in voxels, multiples of 8; the position embedding has one entry for each voxel at 1/8.
        width: channels at full size, doubled at each halving; the tokens have 32 times as many.
        mlp_dim: hidden width of the transformer's perceptrons.
        num_heads: attention heads.
        num_layers: of the transformer.
        dropout_rate: dropout in the transformer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: tuple[int, int, int],
        width: int,
        mlp_dim: int,
        num_heads: int,
        num_layers: int,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(len(_BLOCKS))]
        dim = 4 * widths[-1]
        self._grid = tuple(extent // 8 for extent in image_size)
        self.stem = nn.Sequential(_conv(in_channels, width), nn.Dropout3d(_STEM_DROPOUT))
        self.stages = nn.ModuleList(
            nn.Sequential(*(PreActivationBlock(channels) for _ in range(count)))
            for channels, count in zip(widths, _BLOCKS, strict=True)
        )
        self.downs = nn.ModuleList(_conv(fine, coarse, stride=2) for fine, coarse in pairwise(widths))

        self.tokens = nn.Sequential(nn.BatchNorm3d(widths[-1]), nn.ReLU(), _conv(widths[-1], dim))
        self.positions = nn.Parameter(torch.zeros(1, prod(self._grid), dim))
        self.dropout = nn.Dropout(dropout_rate)
        self.transformer = nn.Sequential(
            *(TransformerLayer(dim, mlp_dim, num_heads, dropout_rate) for _ in range(num_layers))
        )
        # The authors' network holds these two and its result does not depend on them.
        self.unused_encoding = nn.Linear(in_channels * widths[-1], dim).requires_grad_(False)
        self.unused_norm = nn.LayerNorm(dim).requires_grad_(False)

        self.narrow = ConvPair(dim, widths[-1])
        self.refine = ResidualPair(widths[-1])
        self.ups = nn.ModuleList(UpAndJoin(coarse, fine) for fine, coarse in reversed(list(pairwise(widths))))
        self.decoder = nn.ModuleList(ResidualPair(fine) for fine in reversed(widths[:-1]))
        self.head = nn.Conv3d(width, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, in_channels, *image_size) to logits (B, out_channels, *image_size)."""
        x = self.stages[0](self.stem(image))
        skips = []
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            skips.append(x)
            x = stage(down(x))
        tokens = self.tokens(x).flatten(2).mT + self.positions
        x = self.transformer(self.dropout(tokens)).mT.unflatten(2, self._grid)
        x = self.refine(self.narrow(x))
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(up(x, skips.pop()))
        logits: Tensor = self.head(x)
        return logits


class PreActivationBlock(nn.Module):
    """Group norm, ReLU and convolution, twice, and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_NORM_GROUPS, channels)
        self.conv1 = _conv(channels, channels)
        self.norm2 = nn.GroupNorm(_NORM_GROUPS, channels)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        mixed: Tensor = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return mixed + x


class ConvPair(nn.Module):
    """Convolution, batch norm and ReLU, twice."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, out_channels)
        self.norm1 = nn.BatchNorm3d(out_channels)
        self.conv2 = _conv(out_channels, out_channels)
        self.norm2 = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, out_channels, D, H, W)."""
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class ResidualPair(ConvPair):
    """A `ConvPair` with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        return super().forward(x) + x


class UpAndJoin(nn.Module):
    """Halve the channels, double the size, put the encoder's feature before it and merge the two."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(channels, out_channels, kernel_size=1)
        self.enlarge = nn.ConvTranspose3d(out_channels, out_channels, kernel_size=2, stride=2)
        self.merge = nn.Conv3d(2 * out_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, channels, D, H, W) and (B, out_channels, 2D, 2H, 2W) to the latter's shape."""
        merged: Tensor = self.merge(torch.cat([skip, self.enlarge(self.narrow(x))], dim=1))
        return merged


class TransformerLayer(nn.Module):
    """Attention over all tokens and a perceptron, each on normalised tokens and with a residual."""

    def __init__(self, dim: int, mlp_dim: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.project_in = nn.Linear(dim, 3 * dim, bias=False)
        self.project_out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout_rate),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout_rate),
        )
        # After the projection and after the whole branch, as in the authors' code.
        self.dropout = nn.Sequential(nn.Dropout(dropout_rate), nn.Dropout(dropout_rate))
        self._heads = num_heads
        self._rate = dropout_rate

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, dim) to the same shape."""
        parts = self.project_in(self.norm1(tokens)).unflatten(-1, (3, self._heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self._rate if self.training else 0.0)
        tokens = tokens + self.dropout(self.project_out(mixed.transpose(1, 2).flatten(2)))
        mixed = self.mlp(self.norm2(tokens))
        return tokens + mixed


def _conv(channels: int, out_channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(channels, out_channels, kernel_size=3, stride=stride, padding=1)
