"""SegMamba as its paper's equation 1 reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.card import ModelCard
from models.errors import ModelError
from models.registry import register
from models.request import at_least_one

if TYPE_CHECKING:
    from torch import nn

_SCALES = 4


@register(
    ModelCard(
        name="segmamba",
        title="SegMamba, equation 1 of the paper",
        family="state space",
        paper="Xing et al., SegMamba: Long-range Sequential Modeling Mamba For 3D Medical Image Segmentation, "
        "arXiv:2401.13560v1",
        year=2024,
        repository="https://github.com/ge-xing/SegMamba",
        commit="none holds equation 1; f9d89cc is the code of the paper's date",
        licence="Apache-2.0 (written from the paper)",
        deviations=(
            "No code of equation 1 was ever released: this is a reading of the paper, and where the paper is "
            "silent the code of its date (f9d89cc, January 2024) decides; its numbers are not that code's.",
            "The stem is depth-wise as the paper says, which with several modalities means one group of "
            "filters for each; the released code mixes the modalities in a full convolution and adds a layer "
            "norm.",
            "Widths 48, 96, 192, 384 are the code's; the paper gives the first only.",
            "Down-sampling between scales, unspecified in the paper, is a layer norm over the channels and a "
            "convolution of kernel 2 and stride 2, as in the code.",
            "The scan runs in one direction, forwards with W fastest, with state 16, convolution 4 and "
            "expansion 2; the paper mentions no other direction, the released code scans in two or three.",
            "The perceptron has ratio 4 and GELU and is part of the trunk with a residual, as equation 1 says; "
            "the released code applies one on the skips only.",
            "The features go to the decoder as they leave a scale, without a further norm.",
            "The decoder, unspecified in the paper, is 3D UX-Net's, as in the code.",
            "Mamba layers start as in mamba-ssm, all others as PyTorch's defaults.",
        ),
        size_multiple=16,
        minimum_size=32,
        fixed_size=False,
        recipe="SGD 1e-2, polynomial decay, 1000 epochs, cross entropy, patches of 128³, batch 2 on each of "
        "four GPUs, weight decay 1e-5",
        parameters_4to4=58_242_916,
    )
)
def segmamba(
    in_channels: int,
    out_channels: int,
    _image_size: tuple[int, int, int],
    *,
    feat_size: tuple[int, ...] = (48, 96, 192, 384),
    depths: tuple[int, ...] = (2, 2, 2, 2),
    d_state: int = 16,
    d_conv: int = 4,
    expand: int = 2,
    mlp_ratio: int = 4,
) -> nn.Module:
    """Build SegMamba.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        feat_size: channels at 1/2, 1/4, 1/8 and 1/16 of the image; the first is a multiple of `in_channels`.
        depths: blocks of Mamba and perceptron at each of these scales.
        d_state: states per inner channel of a Mamba layer.
        d_conv: extent of its causal convolution in tokens.
        expand: its inner channels per channel.
        mlp_ratio: hidden channels of a perceptron per channel.

    Raises:
        ModelError: a count is below 1, not four scales are given, or the depth-wise stem does not divide.
    """
    at_least_one(
        "segmamba",
        feat_size=feat_size,
        depths=depths,
        d_state=d_state,
        d_conv=d_conv,
        expand=expand,
        mlp_ratio=mlp_ratio,
    )
    for option, value in (("feat_size", feat_size), ("depths", depths)):
        if len(value) != _SCALES:
            raise ModelError(f"segmamba: {option} needs one entry for each of {_SCALES} scales; got {value!r}.")
    if feat_size[0] % in_channels:
        below = feat_size[0] // in_channels * in_channels
        smaller = f"{below} or " if below else ""
        raise ModelError(
            f"segmamba: the depth-wise stem gives each of the {in_channels} image channels as many filters, so "
            f"feat_size must begin with a multiple of {in_channels}, such as {smaller}{below + in_channels}; "
            f"got {feat_size[0]}."
        )
    from models.segmamba import SegMamba

    return SegMamba(in_channels, out_channels, feat_size, depths, d_state, d_conv, expand, mlp_ratio)
