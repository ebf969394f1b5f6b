"""UNETR, as MONAI ships it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.card import ModelCard
from models.errors import ModelError
from models.published import Published
from models.registry import register
from models.request import at_least_one, one_of, probability

if TYPE_CHECKING:
    from torch import nn

_PROJECTIONS = ("conv", "perceptron")


@register(
    ModelCard(
        name="unetr",
        title="UNETR: vision transformer encoder, convolutional decoder",
        family="transformer",
        paper="Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022, arXiv:2103.10504",
        year=2021,
        repository="https://github.com/Project-MONAI/MONAI",
        commit="7af492176792f9069b8f1253d099abd05c5e769d (release 1.6.1)",
        licence="Apache-2.0",
        deviations=(
            "The patch embedding is a convolution, MONAI's default; the authors' first release flattens the "
            'patches before a linear layer (proj_type="perceptron").',
            "Since MONAI 1.4 each transformer block holds a layer norm for cross attention that nothing uses; "
            "it is removed here, which leaves the parameters of MONAI up to 1.3: at 128³, 4→4, "
            "102,449,732 and not 102,468,164.",
        ),
        size_multiple=16,
        minimum_size=16,
        fixed_size=True,
        recipe="AdamW 1e-4, batch 6, 20,000 iterations, Dice with cross entropy",
        recipe_fields={
            "train.steps": 20_000,
            "train.batch_size": 6,
            "train.loss": "dice_ce",
            "train.dice_background": True,
            "train.dice_squared": True,
            "train.optimiser": "adamw",
            "train.learning_rate": 1e-4,
            "train.weight_decay": 1e-5,
            "train.schedule": "cosine",
            "train.warmup_steps": 200,  # a hundredth of the training, as in its main.py
        },
        parameters_4to4=102_449_732,
        gmacs_128=183.68,
    ),
    # Of MONAI since 1.4 and of its first releases; neither was ever used.
    Published(dropped=(r"\.norm_cross_attn\.", r"^vit\.patch_embedding\.cls_token$")),
)
def unetr(
    in_channels: int,
    out_channels: int,
    image_size: tuple[int, int, int],
    *,
    feature_size: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_heads: int = 12,
    proj_type: str = "conv",
    dropout_rate: float = 0.0,
) -> nn.Module:
    """Build UNETR with 12 transformer blocks on patches of 16³ voxels.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: (D, H, W) in voxels; the position embedding holds one entry for each patch of it.
        feature_size: channels of the decoder at full resolution, doubled at each halving.
        hidden_size: width of the tokens; a multiple of `num_heads`.
        mlp_dim: hidden width of the blocks' perceptrons.
        num_heads: attention heads.
        proj_type: patch embedding, ``conv`` or ``perceptron``.
        dropout_rate: dropout in the transformer.

    Raises:
        ModelError: a width is below 1, the heads do not divide `hidden_size`, or another value is not allowed.
    """
    at_least_one("unetr", feature_size=feature_size, hidden_size=hidden_size, mlp_dim=mlp_dim, num_heads=num_heads)
    if hidden_size % num_heads:
        divisors = [heads for heads in range(1, hidden_size + 1) if hidden_size % heads == 0]
        nearest = min(divisors, key=lambda heads: abs(heads - num_heads))
        raise ModelError(
            f"unetr: num_heads={num_heads} does not divide hidden_size={hidden_size}; take {nearest} heads."
        )
    one_of("unetr", "proj_type", proj_type, _PROJECTIONS)
    probability("unetr", dropout_rate=dropout_rate)
    from monai.networks.nets.unetr import UNETR
    from torch import nn

    network = UNETR(
        in_channels=in_channels,
        out_channels=out_channels,
        img_size=image_size,
        feature_size=feature_size,
        hidden_size=hidden_size,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        proj_type=proj_type,
        dropout_rate=dropout_rate,
    )
    for block in network.vit.blocks:
        # Unused parameters get no gradient, which distributed training takes for an error.
        block.norm_cross_attn = nn.Identity()
    return network
