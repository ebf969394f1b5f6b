"""SegMamba (Xing et al. 2024, arXiv:2401.13560): its paper's equation 1 and the three states of its released code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from models.decoder import UxNetDecoder
from models.mamba import CrossScanMamba, Mamba, MultiOrderMamba
from models.norm import ChannelsFirstLayerNorm
from models.segmamba_variant import Variant

# Depth of each scale for the published patch of 128³ voxels, which the released code takes for any other too.
PUBLISHED_SLICES = (64, 32, 16, 8)

_ORDERS = {"bidirectional": ("forward", "backward"), "tri": ("forward", "backward", "slices")}


class SegMamba(nn.Module):
    """State-space encoder at 1/2, 1/4, 1/8 and 1/16 of the image, convolutional decoder with skips.

    Args:
        in_channels: number of image channels; divides `feat_size[0]` where the stem is depth-wise.
        out_channels: number of logits per voxel.
        variant: which state of SegMamba.
        feat_size: channels at each scale, from fine to coarse.
        depths: blocks at each scale.
        mlp_ratio: hidden channels of the perceptrons per channel.
        scan: orders in which a volume is read: ``forward``, ``bidirectional``, ``tri`` or ``cross``.
        num_slices: runs of the inter-slice order at each scale, None for the depth of the volume; only ``tri`` has it.
        d_state: see `Mamba`.
        d_conv: see `Mamba`.
        expand: see `Mamba`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        variant: Variant,
        feat_size: Sequence[int],
        depths: Sequence[int],
        mlp_ratio: int,
        scan: str,
        num_slices: Sequence[int | None],
        d_state: int,
        d_conv: int,
        expand: int,
    ) -> None:
        super().__init__()
        stages = []
        for width, depth, slices in zip(feat_size, depths, num_slices, strict=True):
            mixer = partial(build_mixer, scan, width, slices, d_state, d_conv, expand)
            stages.append(nn.ModuleList(_block(variant, width, mixer, mlp_ratio) for _ in range(depth)))
        self.encoder = Encoder(in_channels, feat_size, stages, variant, mlp_ratio)
        self.decoder = UxNetDecoder(in_channels, out_channels, feat_size)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W); D, H, W multiples of 16.

        With ``tri``, `num_slices` must divide the voxels of each scale.
        """
        logits: Tensor = self.decoder(image, self.encoder(image))
        return logits


class Encoder(nn.Module):
    """Stem, then stages that see the volume as a sequence, with down-sampling between them.

    Args:
        in_channels: number of image channels.
        widths: channels at each scale.
        stages: the blocks of each scale, from tokens (B, L, widths[i]) and size (D, H, W) to the same tokens.
        variant: which state of SegMamba.
        mlp_ratio: hidden channels of the perceptrons on the skips per channel.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stages: Sequence[nn.ModuleList],
        variant: Variant,
        mlp_ratio: int,
    ) -> None:
        super().__init__()
        self.downs = nn.ModuleList([_stem(in_channels, widths[0], variant)])
        self.downs.extend(
            nn.Sequential(_norm(fine, variant), nn.Conv3d(fine, coarse, kernel_size=2, stride=2))
            for fine, coarse in pairwise(widths)
        )
        self.spatial = nn.ModuleList(
            SpatialMixing(width) if variant.spatial_mixing else nn.Identity() for width in widths
        )
        self.stages = nn.ModuleList(stages)
        self.exits = nn.ModuleList(
            _skip_perceptron(width, variant, mlp_ratio) if variant.skip_perceptron else nn.Identity()
            for width in widths
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (B, C, D, H, W) to one feature per scale, (B, widths[i], D / 2^(i+1), ...)."""
        features = []
        x = image
        for down, spatial, stage, leave in zip(self.downs, self.spatial, self.stages, self.exits, strict=True):
            x = spatial(down(x))
            size = x.shape[2:]
            tokens = as_tokens(x)
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                tokens = block(tokens, size)
            x = as_volume(tokens, size)
            features.append(leave(x))
        return features


class EquationOneBlock(nn.Module):
    """Equation 1 of the paper: z' = Mamba(LN(z)) + z, then z'' = MLP(LN(z')) + z'.

    Args:
        dim: channels of the tokens.
        mamba: the mixing layer, from tokens (B, L, dim) and the volume's size (D, H, W) to the same shape.
        mlp_ratio: hidden channels of the perceptron per channel.
    """

    def __init__(self, dim: int, mamba: nn.Module, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mamba = mamba
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Tokens (B, L, dim) to the same shape."""
        tokens = self.mamba(self.norm1(tokens), size) + tokens
        mixed: Tensor = self.mlp(self.norm2(tokens)) + tokens
        return mixed


class NormedMamba(nn.Module):
    """Mamba(LN(z)), and z added to it where `residual` is set: the block of the released code.

    Args:
        dim: channels of the tokens.
        mamba: as for `EquationOneBlock`.
        residual: whether the tokens themselves are added.
    """

    def __init__(self, dim: int, mamba: nn.Module, residual: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mamba = mamba
        self.residual = residual

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Tokens (B, L, dim) to the same shape."""
        mixed: Tensor = self.mamba(self.norm(tokens), size)
        return tokens + mixed if self.residual else mixed


class SpatialMixing(nn.Module):
    """The released code's gated spatial convolution: two 3³ convolutions beside a 1³ one, summed, and a residual.

    Each convolution is followed by an instance norm and ReLU. Despite its name nothing is gated: the branches are
    added, where the MICCAI text (arXiv:2401.13560v4, section 2.3) multiplies them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(_conv_norm_relu(channels, 3), _conv_norm_relu(channels, 3))
        self.narrow = _conv_norm_relu(channels, 1)
        self.merge = _conv_norm_relu(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        mixed: Tensor = self.merge(self.wide(x) + self.narrow(x))
        return mixed + x


def build_mixer(scan: str, dim: int, num_slices: int | None, d_state: int, d_conv: int, expand: int) -> nn.Module:
    """The Mamba layer that reads volumes in the orders of `scan`; takes tokens (B, L, dim) and their size (D, H, W)."""
    if scan == "cross":
        return CrossScanMamba(dim, d_state, expand)
    if scan == "forward":
        return Mamba(dim, d_state, d_conv, expand)
    return MultiOrderMamba(dim, _ORDERS[scan], num_slices, d_state, d_conv, expand)


def as_tokens(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) to tokens (B, D·H·W, C), W fastest."""
    return volume.flatten(2).mT


def as_volume(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Tokens (B, D·H·W, C) to (B, C, D, H, W) for `size` (D, H, W): undoes `as_tokens`."""
    return tokens.mT.unflatten(2, size)


def _block(variant: Variant, width: int, mixer: Callable[[], nn.Module], mlp_ratio: int) -> nn.Module:
    if variant.block == "equation_1":
        return EquationOneBlock(width, mixer(), mlp_ratio)
    return NormedMamba(width, mixer(), residual=variant.block == "residual")


def _stem(in_channels: int, width: int, variant: Variant) -> nn.Module:
    groups = in_channels if variant.stem == "depthwise" else 1
    convolution = nn.Conv3d(in_channels, width, kernel_size=7, stride=2, padding=3, groups=groups)
    return nn.Sequential(convolution, ChannelsFirstLayerNorm(width)) if variant.stem == "normed" else convolution


def _norm(width: int, variant: Variant) -> nn.Module:
    return ChannelsFirstLayerNorm(width) if variant.norm == "layer" else nn.InstanceNorm3d(width)


def _skip_perceptron(width: int, variant: Variant, mlp_ratio: int) -> nn.Module:
    hidden = mlp_ratio * width
    return nn.Sequential(
        _norm(width, variant),
        nn.Conv3d(width, hidden, kernel_size=1),
        nn.GELU(),
        nn.Conv3d(hidden, width, kernel_size=1),
    )


def _conv_norm_relu(channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, channels, kernel_size, padding=kernel_size // 2), nn.InstanceNorm3d(channels), nn.ReLU()
    )
