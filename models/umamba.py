"""U-Mamba (Ma et al. 2024, arXiv:2401.04722): a residual nnU-Net with Mamba at the bottleneck or in every stage."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from models.mamba import Mamba
from models.nnunet import SLOPE, ConvNorm, Decoder, Encoder, UNet, initialise, residual_blocks
from models.ops.precision import at_least_fp32, no_autocast


def build_umamba(
    in_channels: int,
    out_channels: int,
    image_size: tuple[int, int, int],
    widths: Sequence[int],
    everywhere: bool,
    deep_supervision: bool,
) -> UNet:
    """U-Mamba with its Mamba layers after every stage of the encoder, or after the last alone.

    Two blocks in the first half of the stages and one in the others, on both sides: what the released code makes of
    a plan of two everywhere.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: (D, H, W) in voxels; where Mamba is everywhere, shapes of parameters depend on it.
        widths: channels of the stages, from fine to coarse.
        everywhere: whether Mamba stands after every stage.
        deep_supervision: in training return the logits of all decoder stages.
    """
    last = len(widths) - 1
    stages = []
    for stage, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        blocks = residual_blocks(
            ProjectedBlock(before, width, stride=2 if stage else 1), _blocks(stage, last + 1), width
        )
        if everywhere or stage == last:
            grid = [extent >> stage for extent in image_size]
            blocks = nn.Sequential(blocks, VolumeMamba(width, grid, by_channel=everywhere and prod(grid) <= width))
        stages.append(blocks)
    decoder = Decoder(
        widths,
        out_channels,
        Enlarge,
        [
            residual_blocks(ProjectedBlock(2 * width, width), _blocks(turn, last + 1), width)
            for turn, width in enumerate(widths[-2::-1])
        ],
        deep_supervision,
    )
    stem = residual_blocks(ProjectedBlock(in_channels, widths[0]), _blocks(0, last + 1), widths[0])
    network = UNet(Encoder(stem, stages), decoder)
    initialise(network)
    return network


class ProjectedBlock(nn.Module):
    """Two convolutions with norms, beside them a convolution of kernel 1 without; leaky ReLU on the sum."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, out_channels, stride=stride)
        self.conv2 = ConvNorm(out_channels, out_channels, activate=False)
        self.shortcut = nn.Conv3d(channels, out_channels, kernel_size=1, stride=stride)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, out_channels, D/stride, ...)."""
        mixed: Tensor = self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))
        return mixed


class VolumeMamba(nn.Module):
    """Layer norm and Mamba over the voxels of a feature, without a residual, in fp32 at least.

    Args:
        channels: of the feature.
        grid: its (D, H, W).
        by_channel: take the channels for tokens and the voxels for their channels, as the released code does where
            there are no more voxels than channels.
    """

    def __init__(self, channels: int, grid: Sequence[int], *, by_channel: bool) -> None:
        super().__init__()
        dim = prod(grid) if by_channel else channels
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(dim)
        self._by_channel = by_channel

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        with no_autocast(x.device.type):
            tokens = x.to(at_least_fp32(x.dtype)).flatten(2)
            if not self._by_channel:
                tokens = tokens.mT
            mixed: Tensor = self.mamba(self.norm(tokens))
            return (mixed if self._by_channel else mixed.mT).unflatten(2, x.shape[2:])


class Enlarge(nn.Module):
    """Each voxel eight times, then a convolution of kernel 1."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, out_channels, 2D, 2H, 2W)."""
        enlarged: Tensor = self.conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
        return enlarged


def _blocks(stage: int, stages: int) -> int:
    return 2 if stage < (stages + 1) // 2 else 1
