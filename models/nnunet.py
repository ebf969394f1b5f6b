"""nnU-Net's architectures: the plain U-Net (Isensee et al. 2021) and its residual encoder (arXiv:2404.09556)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

SLOPE = 0.01


class UNet(nn.Module):
    """An encoder whose features shrink by half from stage to stage, and a decoder that concatenates them.

    Args:
        encoder: images (B, C, D, H, W) to features, from fine to coarse, the first at full size.
        decoder: features to logits.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Images (B, C, D, H, W) to logits (B, K, D, H, W).

        In training with deep supervision a list: these logits, then those of the coarser stages.
        """
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits


class Encoder(nn.Module):
    """Stages one after the other, with what stands before the first of them; every stage's outcome is kept."""

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) to one feature per stage."""
        x = self.stem(image)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the coarsest stage to the finest: enlarge, concatenate the encoder's feature, convolve; a head on each.

    All heads are there whether deep supervision uses them or not, as in nnU-Net, so that weights fit both.

    Args:
        widths: channels of the encoder's features, from fine to coarse.
        out_channels: logits per voxel.
        enlarge: makes the layer that doubles the size, for channels in and out.
        stages: the convolutions of each stage from coarse to fine, for twice the channels of a feature in.
        deep_supervision: in training return the logits of all stages.
    """

    def __init__(
        self,
        widths: Sequence[int],
        out_channels: int,
        enlarge: Callable[[int, int], nn.Module],
        stages: Sequence[nn.Module],
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        fine_widths = widths[-2::-1]
        self.enlarge = nn.ModuleList(
            enlarge(below, width) for below, width in zip(widths[:0:-1], fine_widths, strict=True)
        )
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(nn.Conv3d(width, out_channels, kernel_size=1) for width in fine_widths)
        self._deep_supervision = deep_supervision
        if not deep_supervision:
            self.heads[:-1].requires_grad_(False)

    def forward(self, features: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Features from fine to coarse to logits at the size of the finest; with deep supervision see `UNet`."""
        *skips, x = features
        levels = []
        for enlarge, stage, skip in zip(self.enlarge, self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([enlarge(x), skip], dim=1))
            levels.append(x)
        if self._deep_supervision and self.training:
            return [head(level) for head, level in zip(self.heads, levels, strict=True)][::-1]
        logits: Tensor = self.heads[-1](x)
        return logits


class ConvNorm(nn.Sequential):
    """Convolution, instance norm with weights and, where `activate` is set, leaky ReLU."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        bias: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias)
        self.norm = nn.InstanceNorm3d(out_channels, affine=True)
        if activate:
            # In place, here and on the sums of residual blocks, as in nnU-Net, for a training step's memory.
            self.activation = nn.LeakyReLU(SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """ResNet-D's basic block: two convolutions, beside them average pooling and a kernel of 1 where needed."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, out_channels, stride=stride)
        self.conv2 = ConvNorm(out_channels, out_channels, activate=False)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.AvgPool3d(stride))
        if channels != out_channels:
            self.shortcut.append(ConvNorm(channels, out_channels, kernel_size=1, bias=False, activate=False))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, out_channels, D/stride, ...)."""
        mixed: Tensor = self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))
        return mixed


def plain_unet(
    in_channels: int, out_channels: int, widths: Sequence[int], convolutions: int, deep_supervision: bool
) -> UNet:
    """nnU-Net's plain U-Net: `convolutions` of them per stage, the first of a stage with stride 2, on both sides."""
    inputs = (in_channels, *widths)
    stages = [
        _convolve(before, width, convolutions, stride=2 if stage else 1)
        for stage, (before, width) in enumerate(zip(inputs, widths, strict=False))
    ]
    decoder = _transposed_decoder(widths, out_channels, convolutions, deep_supervision)
    network = UNet(Encoder(nn.Identity(), stages), decoder)
    initialise(network)
    return network


def residual_unet(
    in_channels: int, out_channels: int, widths: Sequence[int], blocks: Sequence[int], deep_supervision: bool
) -> UNet:
    """nnU-Net's residual encoder with its plain decoder: `blocks` per stage, one convolution per decoder stage."""
    inputs = (widths[0], *widths)
    stages = [
        residual_blocks(ResidualBlock(before, width, stride=2 if stage else 1), count)
        for stage, (before, width, count) in enumerate(zip(inputs, widths, blocks, strict=False))
    ]
    decoder = _transposed_decoder(widths, out_channels, 1, deep_supervision)
    network = UNet(Encoder(ConvNorm(in_channels, widths[0]), stages), decoder)
    initialise(network)
    for module in network.modules():
        if isinstance(module, ResidualBlock):  # the branches begin closed
            nn.init.zeros_(module.conv2.norm.weight)
    return network


def residual_blocks(first: nn.Module, count: int, width: int = 0) -> nn.Sequential:
    """`first`, then residual blocks of `width` channels until there are `count` in all."""
    if isinstance(first, ResidualBlock):
        width = first.conv2.conv.out_channels
    return nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(count - 1)))


def initialise(network: nn.Module) -> None:
    """He initialisation of all convolutions, biases at zero, as nnU-Net and U-Mamba start."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _convolve(channels: int, width: int, count: int, stride: int = 1) -> nn.Sequential:
    first = ConvNorm(channels, width, stride=stride)
    return nn.Sequential(first, *(ConvNorm(width, width) for _ in range(count - 1)))


def _transposed_decoder(widths: Sequence[int], out_channels: int, convolutions: int, deep_supervision: bool) -> Decoder:
    return Decoder(
        widths,
        out_channels,
        lambda below, width: nn.ConvTranspose3d(below, width, kernel_size=2, stride=2),
        [_convolve(2 * width, width, convolutions) for width in widths[-2::-1]],
        deep_supervision,
    )
