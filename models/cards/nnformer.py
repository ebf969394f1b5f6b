"""nnFormer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.recipes import NNUNET
from models.errors import ModelError
from models.published import Published
from models.registry import register
from models.request import check_scales, probability

if TYPE_CHECKING:
    from torch import nn

_SCALES = 4


@register(
    ModelCard(
        name="nnformer",
        title="nnFormer: windowed attention interleaved with convolutions",
        family="transformer",
        paper="Zhou et al., nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer, IEEE TIP 2023, "
        "arXiv:2109.03201",
        year=2021,
        repository="https://github.com/282857341/nnFormer",
        commit="d48aaeb05612a09538f70c38a2357149ea3a7ac0",
        licence="Apache-2.0 (written anew after the released code, which is under the MIT licence)",
        deviations=(
            "The configuration is that of the authors' brain tumour trainer (width 96, heads 3, 6, 12, 24), not the "
            "class's defaults, which are for abdominal CT.",
            "Weights start at random; the authors' trainer loads a pretrained file that is not published.",
            "With deep supervision the coarser logits come in training only.",
        ),
        size_multiple=32,
        minimum_size=32,
        fixed_size=True,
        recipe="SGD 1e-2, momentum 0.99 (Nesterov), 1000 epochs of 250 steps, Dice with cross entropy, patches of "
        "128³, batch 2, from pretrained weights",
        recipe_fields=NNUNET | {"train.deep_supervision": False},
        parameters_4to4=37_606_726,
        gmacs_128=63.9,
    ),
    Published(
        rules=(
            (r"^embedding\.norms\.3\.", "model_down.patch_embed.norm."),
            (
                r"^embedding\.(convolution|norm)s\.(\d)\.",
                lambda match: (
                    f"model_down.patch_embed.proj{int(match[2]) // 2 + 1}."
                    f"{match[1].replace('convolution', 'conv')}{int(match[2]) % 2 + 1}."
                ),
            ),
            (r"^encoder\.(\d)\.", r"model_down.layers.\1.blocks."),
            (r"^downs\.(\d)\.convolution\.", r"model_down.layers.\1.downsample.reduction."),
            (r"^downs\.(\d)\.", r"model_down.layers.\1.downsample."),
            (r"^norms\.(\d)\.", r"model_down.norm\1."),
            (r"^decoder\.(\d)\.", lambda match: f"decoder.layers.{2 - int(match[1])}.blocks."),
            (r"^ups\.(\d)\.", lambda match: f"decoder.layers.{2 - int(match[1])}.Upsample."),
            (r"\.Upsample\.convolution\.", ".Upsample.up."),
            (r"^heads\.(\d)\.", r"final.\1.up."),
            (r"\.attention\.offset_bias$", ".attn.relative_position_bias_table"),
            (r"^(decoder\.layers\.\d\.blocks\.0)\.attention\.project_in\.", r"\1.attn.kv."),
            (r"\.attention\.project_in\.", ".attn.qkv."),
            (r"\.attention\.project_out\.", ".attn.proj."),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.2\.", ".mlp.fc2."),
        )
    ),
)
def nnformer(
    in_channels: int,
    out_channels: int,
    image_size: tuple[int, int, int],
    *,
    embedding_dim: int = 96,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    num_heads: tuple[int, ...] = (3, 6, 12, 24),
    window_size: tuple[int, ...] = (4, 4, 8, 4),
    drop_path_rate: float = 0.2,
    deep_supervision: bool = False,
) -> nn.Module:
    """Build nnFormer.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: (D, H, W) in voxels; the network takes no other.
        embedding_dim: channels at 1/4 of the image, doubled at each of the three halvings; even.
        depths: blocks at 1/4, 1/8, 1/16 and 1/32 of the image.
        num_heads: attention heads at these scales; the decoder has those of the next coarser scale.
        window_size: edges of the attention windows at these scales, in tokens.
        drop_path_rate: probability that the last block is skipped for a sample in training; less for those before.
        deep_supervision: in training also return logits at 1/2 and 1/4 of the image.

    Raises:
        ModelError: not four scales are given, or heads do not divide the channels.
    """
    check_scales("nnformer", _SCALES, depths=depths, num_heads=num_heads, window_size=window_size)
    probability("nnformer", drop_path_rate=drop_path_rate)
    if embedding_dim < 2 or embedding_dim % 2:
        raise ModelError(f"nnformer: embedding_dim must be even and at least 2; got {embedding_dim}.")
    for scale in range(_SCALES):
        for heads in num_heads[scale : scale + 2] if scale < _SCALES - 1 else num_heads[scale:]:
            if (embedding_dim << scale) % heads:
                raise ModelError(
                    f"nnformer: {heads} heads do not divide the {embedding_dim << scale} channels of scale {scale} "
                    f"(embedding_dim={embedding_dim}, num_heads={num_heads}; the decoder takes the heads of the "
                    "next coarser scale)."
                )
    from models.nnformer import NnFormer

    return NnFormer(
        in_channels,
        out_channels,
        image_size,
        embedding_dim,
        depths,
        num_heads,
        window_size,
        drop_path_rate,
        deep_supervision,
    )
