"""MedNeXt in its four published sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.recipes import NNUNET
from models.errors import ModelError
from models.published import Published
from models.registry import register
from models.request import at_least_one

if TYPE_CHECKING:
    from torch import nn

_LEVELS = 4
_KERNELS = (3, 5)

_SMALL = ModelCard(
    name="mednext_s",
    title="MedNeXt-S",
    family="convolution",
    paper="Roy et al., MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation, MICCAI 2023, "
    "arXiv:2303.09975",
    year=2023,
    repository="https://github.com/MIC-DKFZ/MedNeXt",
    commit="0b78ed869fbd1cc2fd38754d2f8519f1b72d43ba",
    licence="Apache-2.0 (written anew after the released code)",
    deviations=(
        "With deep supervision the coarser logits come in training only; the released code returns them always.",
        "Kernels of 5 start at random, not from a trained network with kernels of 3 (the paper's UpKern).",
    ),
    size_multiple=16,
    minimum_size=32,
    fixed_size=False,
    recipe="AdamW 1e-3, 1000 epochs of 250 steps, Dice with cross entropy, deep supervision, patches of 128³, batch 2",
    recipe_fields=NNUNET
    | {"train.optimiser": "adamw", "train.learning_rate": 1e-3, "train.adam_epsilon": 1e-4},  # less is NaN in fp16
    parameters_4to4=5_551_077,
    gmacs_128=127.58,
    unused=("unused_scalar",),
)

_NAMES = Published(
    rules=(
        (r"^encoder\.(\d)\.", r"enc_block_\1."),
        (r"^downs\.(\d)\.", r"down_\1."),
        (r"^ups\.(\d)\.", lambda match: f"up_{_LEVELS - 1 - int(match[1])}."),
        (r"^decoder\.(\d)\.", lambda match: f"dec_block_{_LEVELS - 1 - int(match[1])}."),
        (r"^heads\.(\d)\.", r"out_\1.conv_out."),
        (r"^unused_scalar$", "dummy_tensor"),
        (r"\.depthwise\.", ".conv1."),
        (r"\.widen\.", ".conv2."),
        (r"\.narrow\.", ".conv3."),
        (r"\.shortcut\.", ".res_conv."),
    )
)


def _register(card: ModelCard, ratios: tuple[int, ...], depths: tuple[int, ...], default_checkpointing: bool) -> None:
    @register(card, _NAMES)
    def build(
        in_channels: int,
        out_channels: int,
        _image_size: tuple[int, int, int],
        *,
        kernel_size: int = 3,
        deep_supervision: bool = False,
        n_channels: int = 32,
        gradient_checkpointing: bool = default_checkpointing,
    ) -> nn.Module:
        """Build a MedNeXt.

        Args:
            in_channels: number of image channels.
            out_channels: number of logits per voxel.
            kernel_size: of the depth-wise convolutions, 3 or 5.
            deep_supervision: in training also return logits at 1/2, 1/4, 1/8 and 1/16 of the image.
            n_channels: channels at full resolution, doubled at each halving.
            gradient_checkpointing: save memory in training by computing each block twice; the released code does so
                for the sizes M and L.

        Raises:
            ModelError: a kernel of another size, or no channels.
        """
        at_least_one(card.name, n_channels=n_channels)
        if kernel_size not in _KERNELS:
            raise ModelError(f"{card.name}: kernel_size must be 3 or 5; got {kernel_size}.")
        from models.mednext import MedNeXt

        return MedNeXt(
            in_channels,
            out_channels,
            n_channels,
            ratios,
            depths,
            kernel_size,
            deep_supervision,
            gradient_checkpointing,
        )


_register(_SMALL, (2,) * 9, (2,) * 9, default_checkpointing=False)
_register(
    replace(_SMALL, name="mednext_b", title="MedNeXt-B", parameters_4to4=10_526_469, gmacs_128=167.0),
    (2, 3, 4, 4, 4, 4, 4, 3, 2),
    (2,) * 9,
    default_checkpointing=False,
)
_register(
    replace(_SMALL, name="mednext_m", title="MedNeXt-M", parameters_4to4=17_549_125, gmacs_128=243.89),
    (2, 3, 4, 4, 4, 4, 4, 3, 2),
    (3, 4, 4, 4, 4, 4, 4, 4, 3),
    default_checkpointing=True,
)
_register(
    replace(_SMALL, name="mednext_l", title="MedNeXt-L", parameters_4to4=61_779_429, gmacs_128=494.88),
    (3, 4, 8, 8, 8, 8, 8, 4, 3),
    (3, 4, 8, 8, 8, 8, 8, 4, 3),
    default_checkpointing=True,
)
