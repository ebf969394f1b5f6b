"""The convolutional decoder of 3D UX-Net and SwinUNETR, which several encoders share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn


class UxNetDecoder(nn.Module):
    """Residual blocks on each skip, then up-sampling by transposed convolution, concatenation and a residual block.

    Source: 3D UX-Net (Lee et al. 2022, arXiv:2209.15076), whose code takes it from SwinUNETR. With encoder
    widths w0..w3 at 1/2, 1/4, 1/8 and 1/16 of the image, the skips are the image itself made w0 channels wide and
    the features made w1, w2, w3 wide; the coarsest feature, made 2·w3 wide, is what is up-sampled.

    Args:
        in_channels: channels of the image.
        out_channels: logits per voxel.
        widths: channels of the encoder's features, from fine to coarse.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        skip_widths = (*widths, 2 * widths[-1])
        self.skips = nn.ModuleList(
            _residual(inner, outer) for inner, outer in zip((in_channels, *widths), skip_widths, strict=True)
        )
        self.ups = nn.ModuleList(
            UnetrUpBlock(
                spatial_dims=3,
                in_channels=coarse,
                out_channels=fine,
                kernel_size=3,
                upsample_kernel_size=2,
                norm_name="instance",
                res_block=True,
            )
            for fine, coarse in reversed(list(pairwise(skip_widths)))
        )
        self.refine = _residual(widths[0], widths[0])
        self.head = nn.Conv3d(widths[0], out_channels, kernel_size=1)

    def forward(self, image: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Decode to logits.

        Args:
            image: (B, in_channels, D, H, W).
            features: the encoder's, from fine to coarse: (B, widths[i], D / 2^(i+1), H / 2^(i+1), W / 2^(i+1)).

        Returns:
            Logits (B, out_channels, D, H, W).
        """
        *skips, x = (block(feature) for block, feature in zip(self.skips, (image, *features), strict=True))
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(self.refine(x))
        return logits


def _residual(in_channels: int, out_channels: int) -> nn.Module:
    return UnetrBasicBlock(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=3,
        stride=1,
        norm_name="instance",
        res_block=True,
    )
