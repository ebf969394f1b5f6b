"""nnU-Net's architectures: the plain U-Net and the one with a residual encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.recipes import NNUNET
from models.cards.shared_names import NNUNET_ALIASES, NNUNET_DECODER, Rules
from models.published import Published
from models.registry import register
from models.request import at_least_one, check_scales

if TYPE_CHECKING:
    from torch import nn

_STAGES = 6

_PLAIN = ModelCard(
    name="nnunet",
    title="nnU-Net's plain U-Net, as it plans BraTS; the architecture, not the framework",
    family="convolution",
    paper="Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, "
    "Nature Methods 2021, arXiv:1904.08128",
    year=2019,
    repository="https://github.com/MIC-DKFZ/dynamic-network-architectures",
    commit="release 0.4.4",
    licence="Apache-2.0 (written anew after the released code)",
    deviations=(
        "The plan is fixed: six stages, kernels of 3, halved along all axes; the framework plans it for each dataset.",
        "With deep supervision the coarser logits come in training only.",
    ),
    size_multiple=32,
    minimum_size=64,
    fixed_size=False,
    recipe="SGD 1e-2, momentum 0.99 (Nesterov), polynomial decay, 1000 epochs of 250 steps, Dice with cross entropy, "
    "deep supervision, patches of 128³, batch 2",
    recipe_fields=NNUNET,
    parameters_4to4=31_199_796,
    gmacs_128=482.8,
    unused=("decoder.heads.[0-3].*",),
)

_DECODER: Rules = (
    *NNUNET_DECODER,
    (r"^decoder\.enlarge\.", "decoder.transpconvs."),
    (r"^decoder\.stages\.(\d)\.(\d+)\.", r"decoder.stages.\1.convs.\2."),
)


@register(
    _PLAIN,
    Published(
        rules=(
            *_DECODER,
            (r"^encoder\.stages\.(\d)\.(\d+)\.", r"encoder.stages.\1.0.convs.\2."),
        ),
        aliases=NNUNET_ALIASES,
    ),
)
def nnunet(
    in_channels: int,
    out_channels: int,
    _image_size: tuple[int, int, int],
    *,
    feat_size: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
    n_conv_per_stage: int = 2,
    deep_supervision: bool = False,
) -> nn.Module:
    """Build nnU-Net's plain U-Net.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        feat_size: channels at the six stages, from full resolution down.
        n_conv_per_stage: convolutions per stage, on both sides.
        deep_supervision: in training also return logits at 1/2, 1/4, 1/8 and 1/16 of the image.

    Raises:
        ModelError: a count is below 1, or not six stages are given.
    """
    check_scales("nnunet", _STAGES, feat_size=feat_size)
    at_least_one("nnunet", n_conv_per_stage=n_conv_per_stage)
    from models.nnunet import plain_unet

    return plain_unet(in_channels, out_channels, feat_size, n_conv_per_stage, deep_supervision)


@register(
    replace(
        _PLAIN,
        name="nnunet_resenc",
        title="nnU-Net's U-Net with residual encoder, as it plans BraTS; the architecture, not the framework",
        paper="Isensee et al., nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation, "
        "MICCAI 2024, arXiv:2404.09556",
        year=2024,
        parameters_4to4=102_353_972,
        gmacs_128=722.97,
    ),
    Published(
        rules=(
            *_DECODER,
            (r"^encoder\.stem\.", "encoder.stem.convs.0."),
            (r"^encoder\.stages\.(\d)\.(\d+)\.", r"encoder.stages.\1.blocks.\2."),
            (r"\.shortcut\.", ".skip."),
        ),
        aliases=NNUNET_ALIASES,
    ),
)
def nnunet_resenc(
    in_channels: int,
    out_channels: int,
    _image_size: tuple[int, int, int],
    *,
    feat_size: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
    n_blocks_per_stage: tuple[int, ...] = (1, 3, 4, 6, 6, 6),
    deep_supervision: bool = False,
) -> nn.Module:
    """Build nnU-Net's U-Net with a residual encoder.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        feat_size: channels at the six stages, from full resolution down.
        n_blocks_per_stage: residual blocks at each of them; the decoder has one convolution per stage.
        deep_supervision: in training also return logits at 1/2, 1/4, 1/8 and 1/16 of the image.

    Raises:
        ModelError: a count is below 1, or not six stages are given.
    """
    check_scales("nnunet_resenc", _STAGES, feat_size=feat_size, n_blocks_per_stage=n_blocks_per_stage)
    from models.nnunet import residual_unet

    return residual_unet(in_channels, out_channels, feat_size, n_blocks_per_stage, deep_supervision)
