"""U-Mamba with Mamba at the bottleneck (Bot) or after every stage of the encoder (Enc)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.recipes import NNUNET
from models.cards.shared_names import NNUNET_ALIASES, NNUNET_DECODER, Rules
from models.published import Published
from models.registry import register
from models.request import check_scales

if TYPE_CHECKING:
    from torch import nn

_STAGES = 6

_BOT = ModelCard(
    name="umamba_bot",
    title="U-Mamba Bot: residual U-Net with Mamba at the bottleneck",
    family="state space",
    paper="Ma et al., U-Mamba: Enhancing Long-range Dependency for Biomedical Image Segmentation, arXiv:2401.04722",
    year=2024,
    repository="https://github.com/bowang-lab/U-Mamba",
    commit="28459e33ca03769800dd35e23c6e62491d1925b5",
    licence="Apache-2.0 (written anew after the released code)",
    deviations=(
        "The plan is fixed: six stages, kernels of 3, halved along all axes; the framework plans it for each dataset.",
        "With deep supervision the coarser logits come in training only.",
    ),
    size_multiple=32,
    minimum_size=64,
    fixed_size=False,
    recipe="as nnU-Net: SGD 1e-2, momentum 0.99 (Nesterov), polynomial decay, 1000 epochs of 250 steps, Dice with "
    "cross entropy, deep supervision",
    recipe_fields=NNUNET,
    parameters_4to4=42_124_692,
    gmacs_128=975.59,
    scan_gmacs_128=0.003,
    unused=("decoder.heads.[0-3].*",),
)

_ENC = replace(
    _BOT,
    name="umamba_enc",
    title="U-Mamba Enc: residual U-Net with Mamba after every encoder stage",
    deviations=(
        *_BOT.deviations,
        "As in the released code nothing goes around the Mamba layers, so that rounding errors about double from "
        "stage to stage: fp32 differs from fp64 by parts in a thousand, half precision from both by as much as the "
        "logits vary, and its authors advise against mixed precision.",
    ),
    fixed_size=True,
    parameters_4to4=42_755_220,
    gmacs_128=1007.48,
    scan_gmacs_128=13.04,
)

# A block of two convolutions beside one of kernel 1 without a norm; those after it in a stage are nnU-Net's.
_BLOCKS: Rules = (
    (r"\.0\.conv([12])\.conv\.", r".0.conv\1."),
    (r"\.0\.conv([12])\.norm\.", r".0.norm\1."),
    (r"\.0\.shortcut\.", ".0.conv3."),
)
_BOT_NAMES: Rules = (
    (r"^encoder\.stages\.5\.0\.", "encoder.stages.5."),
    (r"^encoder\.stages\.5\.1\.(norm|mamba)\.", r"mamba_layer.\1."),
)
_ENC_NAMES: Rules = (
    (r"^encoder\.stages\.(\d)\.0\.(\d)", r"encoder.stages.\1.\2"),
    (r"^encoder\.stages\.(\d)\.1\.(norm|mamba)\.", r"encoder.mamba_layers.\1.\2."),
)


def _register(card: ModelCard, names: Rules, everywhere: bool) -> None:
    rules = (*NNUNET_DECODER, *names, *_BLOCKS, (r"^decoder\.enlarge\.", "decoder.upsample_layers."))

    @register(card, Published(rules, aliases=NNUNET_ALIASES))
    def build(
        in_channels: int,
        out_channels: int,
        image_size: tuple[int, int, int],
        *,
        feat_size: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
        deep_supervision: bool = False,
    ) -> nn.Module:
        """Build a U-Mamba.

        Args:
            in_channels: number of image channels.
            out_channels: number of logits per voxel.
            image_size: (D, H, W) in voxels. In Enc, where a stage has no more voxels than channels, the channels are
                the tokens, and shapes of parameters depend on it.
            feat_size: channels at the six stages, from full resolution down.
            deep_supervision: in training also return logits at 1/2, 1/4, 1/8 and 1/16 of the image.

        Raises:
            ModelError: a count is below 1, or not six stages are given.
        """
        check_scales(card.name, _STAGES, feat_size=feat_size)
        from models.umamba import build_umamba

        return build_umamba(in_channels, out_channels, image_size, feat_size, everywhere, deep_supervision)


_register(_BOT, _BOT_NAMES, everywhere=False)
_register(_ENC, _ENC_NAMES, everywhere=True)
