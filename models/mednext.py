"""MedNeXt (Roy et al. 2023, arXiv:2303.09975): a ConvNeXt-style encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LEVELS = 4


class MedNeXt(nn.Module):
    """Four levels, a bottleneck and four levels back, all of inverted bottlenecks with depth-wise convolutions.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        width: channels at full resolution, doubled at each halving.
        ratios: hidden channels per channel, for the levels on the way down, the bottleneck, and the way up.
        depths: blocks in the same order.
        kernel_size: of the depth-wise convolutions; odd.
        deep_supervision: in training also return logits at 1/2, 1/4, 1/8 and 1/16 of the image.
        gradient_checkpointing: compute blocks again in the backward pass instead of keeping their inner features.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        ratios: Sequence[int],
        depths: Sequence[int],
        kernel_size: int,
        deep_supervision: bool,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(LEVELS + 1)]

        def blocks(stage: int) -> nn.ModuleList:
            channels = widths[LEVELS - abs(LEVELS - stage)]
            return nn.ModuleList(MedNeXtBlock(channels, ratios[stage], kernel_size) for _ in range(depths[stage]))

        self.stem = nn.Conv3d(in_channels, width, kernel_size=1)
        self.encoder = nn.ModuleList(blocks(level) for level in range(LEVELS))
        # A block between two levels has the ratio of the level that it leads to.
        self.downs = nn.ModuleList(DownBlock(widths[level], ratios[level + 1], kernel_size) for level in range(LEVELS))
        self.bottleneck = blocks(LEVELS)
        self.ups = nn.ModuleList(
            UpBlock(widths[level + 1], ratios[2 * LEVELS - level], kernel_size) for level in reversed(range(LEVELS))
        )
        self.decoder = nn.ModuleList(blocks(2 * LEVELS - level) for level in reversed(range(LEVELS)))
        # A transposed convolution of kernel 1 has the layout of the authors' weights, and no other effect.
        outputs = LEVELS + 1 if deep_supervision else 1
        self.heads = nn.ModuleList(nn.ConvTranspose3d(c, out_channels, kernel_size=1) for c in widths[:outputs])
        # The authors' network has this scalar for their way of gradient checkpointing; nothing depends on it.
        self.unused_scalar = nn.Parameter(torch.ones(1), requires_grad=False)
        self._deep_supervision = deep_supervision
        self._gradient_checkpointing = gradient_checkpointing

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 16.

        In training with deep supervision a list: these logits, then those at 1/2, 1/4, 1/8 and 1/16.
        """
        x = self.stem(image)
        skips = []
        for stage, down in zip(self.encoder, self.downs, strict=True):
            x = self._through(stage, x)
            skips.append(x)
            x = self._run(down, x)
        x = self._through(self.bottleneck, x)
        levels = [x]
        for up, stage, skip in zip(self.ups, self.decoder, reversed(skips), strict=True):
            x = self._through(stage, skip + self._run(up, x))
            levels.append(x)
        if self._deep_supervision and self.training:
            return [head(level) for head, level in zip(self.heads, reversed(levels), strict=True)]
        logits: Tensor = self.heads[0](x)
        return logits

    def _through(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage.children():
            x = self._run(block, x)
        return x

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self._gradient_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
        return x


class InvertedBottleneck(nn.Module):
    """Depth-wise convolution, a norm on each channel, and a perceptron over the channels.

    Args:
        depthwise: the convolution, which keeps the channels.
        channels: in.
        out_channels: out.
        ratio: hidden channels per channel in.
    """

    def __init__(self, depthwise: nn.Module, channels: int, out_channels: int, ratio: int) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.norm = nn.GroupNorm(channels, channels)
        self.widen = nn.Conv3d(channels, ratio * channels, kernel_size=1)
        self.narrow = nn.Conv3d(ratio * channels, out_channels, kernel_size=1)

    def branch(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, out_channels, ...) at the size that the convolution gives."""
        mixed: Tensor = self.narrow(F.gelu(self.widen(self.norm(self.depthwise(x)))))
        return mixed


class MedNeXtBlock(InvertedBottleneck):
    """An `InvertedBottleneck` with a residual."""

    def __init__(self, channels: int, ratio: int, kernel_size: int) -> None:
        depthwise = nn.Conv3d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        super().__init__(depthwise, channels, channels, ratio)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        return x + self.branch(x)


class DownBlock(InvertedBottleneck):
    """Halves the size and doubles the channels; beside it a strided convolution of kernel 1."""

    def __init__(self, channels: int, ratio: int, kernel_size: int) -> None:
        depthwise = nn.Conv3d(channels, channels, kernel_size, stride=2, padding=kernel_size // 2, groups=channels)
        super().__init__(depthwise, channels, 2 * channels, ratio)
        self.shortcut = nn.Conv3d(channels, 2 * channels, kernel_size=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, 2·channels, D/2, H/2, W/2)."""
        mixed: Tensor = self.branch(x) + self.shortcut(x)
        return mixed


class UpBlock(InvertedBottleneck):
    """Doubles the size and halves the channels; the first plane of each axis is left 0."""

    def __init__(self, channels: int, ratio: int, kernel_size: int) -> None:
        depthwise = nn.ConvTranspose3d(
            channels, channels, kernel_size, stride=2, padding=kernel_size // 2, groups=channels
        )
        super().__init__(depthwise, channels, channels // 2, ratio)
        self.shortcut = nn.ConvTranspose3d(channels, channels // 2, kernel_size=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, channels/2, 2D, 2H, 2W)."""
        return F.pad(self.branch(x) + self.shortcut(x), (1, 0, 1, 0, 1, 0))
