"""3D UX-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.shared_names import UXNET_DECODER
from models.published import Published
from models.registry import register
from models.request import check_scales, probability

if TYPE_CHECKING:
    from torch import nn

_SCALES = 4


@register(
    ModelCard(
        name="uxnet",
        title="3D UX-Net: large depth-wise kernels in the place of windowed attention",
        family="convolution",
        paper="Lee et al., 3D UX-Net: A Large Kernel Volumetric ConvNet Modernizing Hierarchical Transformer for "
        "Medical Image Segmentation, ICLR 2023, arXiv:2209.15076",
        year=2022,
        repository="https://github.com/MASILab/3DUX-Net",
        commit="14ea46b7b4c4980b46aba066aaaa24b1d9c1bb0d",
        licence="Apache-2.0 (written anew after the released code)",
        deviations=("The width of the last convolution follows feat_size; the released code fixes it at 48.",),
        size_multiple=16,
        minimum_size=32,
        fixed_size=False,
        recipe="AdamW 1e-4, 40,000 steps, Dice with cross entropy, patches of 96³, batch 2",
        recipe_fields={
            "data.patch_size": (96, 96, 96),
            "train.steps": 40_000,
            "train.batch_size": 2,
            "train.loss": "dice_ce",
            "train.dice_background": True,
            "train.optimiser": "adamw",
            "train.learning_rate": 1e-4,
            "train.weight_decay": 1e-2,  # PyTorch's default, which its main_train.py takes
            "train.schedule": "constant",
            "train.precision": "fp32",
        },
        parameters_4to4=53_059_444,
        gmacs_128=1389.96,
    ),
    Published(
        rules=(
            *UXNET_DECODER,
            (r"^encoder\.downs\.", "uxnet_3d.downsample_layers."),
            (r"^encoder\.norms\.(\d)\.", r"uxnet_3d.norm\1."),
            (r"^encoder\.stages\.", "uxnet_3d.stages."),
            (r"\.depthwise\.", ".dwconv."),
            (r"\.widen\.", ".pwconv1."),
            (r"\.narrow\.", ".pwconv2."),
            (r"\.scale$", ".gamma"),
        )
    ),
)
def uxnet(
    in_channels: int,
    out_channels: int,
    _image_size: tuple[int, int, int],
    *,
    feat_size: tuple[int, ...] = (48, 96, 192, 384),
    depths: tuple[int, ...] = (2, 2, 2, 2),
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Build 3D UX-Net.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        feat_size: channels at 1/2, 1/4, 1/8 and 1/16 of the image.
        depths: blocks at each of these scales.
        drop_path_rate: probability that the last block is skipped for a sample in training; less for those before.

    Raises:
        ModelError: a count is below 1, not four scales are given, or a rate is no probability.
    """
    check_scales("uxnet", _SCALES, feat_size=feat_size, depths=depths)
    probability("uxnet", drop_path_rate=drop_path_rate)
    from models.uxnet import UxNet

    return UxNet(in_channels, out_channels, feat_size, depths, drop_path_rate)
