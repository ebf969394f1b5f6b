"""TransBTS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.card import ModelCard
from models.errors import ModelError
from models.published import Published
from models.registry import register
from models.request import at_least_one, multiple_of, probability

if TYPE_CHECKING:
    from torch import nn

_NORM_GROUPS = 8
_TOKEN_WIDTH = 32  # per channel at full size


@register(
    ModelCard(
        name="transbts",
        title="TransBTS: U-Net with a transformer at its bottleneck",
        family="transformer",
        paper="Wang et al., TransBTS: Multimodal Brain Tumor Segmentation Using Transformer, MICCAI 2021, "
        "arXiv:2103.04430",
        year=2021,
        repository="https://github.com/Rubics-Xuan/TransBTS",
        commit="658de5f1dde17d25db54fb07adf49370cc32d7c3",
        licence="Apache-2.0 (written anew after the released code)",
        deviations=(
            "Logits are returned; the released code returns their softmax.",
            "Dropout after the first convolution acts in training only; in the released code it acts always, so that "
            "its inference is a matter of chance.",
            "Sizes other than 128³ get a position embedding of their own length; the released code fixes 4096 entries.",
        ),
        size_multiple=8,
        minimum_size=16,
        fixed_size=True,
        recipe="Adam 2e-4 (AMSGrad), polynomial decay 0.9, weight decay 1e-5, 1000 epochs, soft Dice, patches of 128³, "
        "batch 8 on four GPUs",
        recipe_fields={
            "train.epochs": 1000,
            "train.steps_per_epoch": 41,  # 335 cases of BraTS2019 in batches of 8
            "train.batch_size": 8,
            "train.loss": "dice",
            "train.optimiser": "adam",
            "train.amsgrad": True,
            "train.learning_rate": 2e-4,
            "train.weight_decay": 1e-5,
            "train.precision": "fp32",
        },
        parameters_4to4=32_987_588,
        gmacs_128=325.41,
        unused=("unused_encoding.*", "unused_norm.*"),
    ),
    Published(
        rules=(
            (r"^stem\.0\.", "Unet.InitConv.conv."),
            # The authors number the blocks EnBlock1, EnBlock2_1, EnBlock2_2, and so on.
            (r"^stages\.0\.0\.", "Unet.EnBlock1."),
            (
                r"^stages\.(\d)\.(\d)\.",
                lambda match: f"Unet.EnBlock{int(match[1]) + 1}_{int(match[2]) + 1}.",
            ),
            (r"^downs\.(\d)\.", lambda match: f"Unet.EnDown{int(match[1]) + 1}.conv."),
            (r"^tokens\.0\.", "bn."),
            (r"^tokens\.2\.", "conv_x."),
            (r"^positions$", "position_encoding.position_embeddings"),
            # Attention and perceptron of each layer are two entries of one list there.
            (
                r"^transformer\.(\d+)\.(norm1|project_in|project_out)\.",
                lambda match: (
                    f"transformer.net.{2 * int(match[1])}."
                    f"{ {'norm1': 'fn.norm', 'project_in': 'fn.fn.qkv', 'project_out': 'fn.fn.proj'}[match[2]] }."
                ),
            ),
            (
                r"^transformer\.(\d+)\.(norm2|mlp)\.",
                lambda match: (
                    f"transformer.net.{2 * int(match[1]) + 1}.{ {'norm2': 'fn.norm', 'mlp': 'fn.fn.net'}[match[2]] }."
                ),
            ),
            (r"^unused_encoding\.", "linear_encoding."),
            (r"^unused_norm\.", "pre_head_ln."),
            (r"^narrow\.", "Enblock8_1."),
            (r"^refine\.", "Enblock8_2."),
            (r"^ups\.(\d)\.narrow\.", r"ups.\1.conv1."),
            (r"^ups\.(\d)\.enlarge\.", r"ups.\1.conv2."),
            (r"^ups\.(\d)\.merge\.", r"ups.\1.conv3."),
            (r"^ups\.(\d)\.", lambda match: f"DeUp{4 - int(match[1])}."),
            (r"^decoder\.(\d)\.", lambda match: f"DeBlock{4 - int(match[1])}."),
            (r"^head\.", "endconv."),
            (r"^((?:Unet\.En|En|De)[Bb]lock.*)\.norm([12])\.", r"\1.bn\2."),
        )
    ),
)
def transbts(
    in_channels: int,
    out_channels: int,
    image_size: tuple[int, int, int],
    *,
    base_channels: int = 16,
    mlp_dim: int = 4096,
    num_heads: int = 8,
    num_layers: int = 4,
    dropout_rate: float = 0.1,
) -> nn.Module:
    """Build TransBTS.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: (D, H, W) in voxels; the network takes no other.
        base_channels: channels at full size, doubled at each of three halvings; a multiple of 8. The tokens have 32
            times as many.
        mlp_dim: hidden width of the transformer's perceptrons.
        num_heads: attention heads; divide 32 times `base_channels`.
        num_layers: of the transformer.
        dropout_rate: dropout in the transformer.

    Raises:
        ModelError: a count is below 1, `base_channels` is no multiple of 8, or the heads do not divide.
    """
    at_least_one("transbts", mlp_dim=mlp_dim, num_heads=num_heads, num_layers=num_layers)
    probability("transbts", dropout_rate=dropout_rate)
    multiple_of("transbts", _NORM_GROUPS, base_channels=base_channels)
    if _TOKEN_WIDTH * base_channels % num_heads:
        raise ModelError(
            f"transbts: num_heads={num_heads} does not divide the tokens' {_TOKEN_WIDTH * base_channels} channels "
            f"({_TOKEN_WIDTH} × base_channels)."
        )
    from models.transbts import TransBts

    return TransBts(in_channels, out_channels, image_size, base_channels, mlp_dim, num_heads, num_layers, dropout_rate)
