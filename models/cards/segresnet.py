"""SegResNet, as MONAI ships it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.recipes import MIRROR_SCALE_SHIFT
from models.registry import register
from models.request import multiple_of, probability

if TYPE_CHECKING:
    from torch import nn

_NORM_GROUPS = 8


@register(
    ModelCard(
        name="segresnet",
        title="SegResNet: residual encoder-decoder",
        family="convolution",
        paper="Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, arXiv:1810.11654",
        year=2018,
        repository="https://github.com/Project-MONAI/MONAI",
        commit="7af492176792f9069b8f1253d099abd05c5e769d (release 1.6.1)",
        licence="Apache-2.0",
        deviations=(
            "The paper's variational autoencoder branch, which only regularises the training, is left out, "
            "as in MONAI's SegResNet.",
            "16 initial filters, as in MONAI's BraTS tutorial; the paper starts from 32.",
            "No dropout; the paper and MONAI's BraTS tutorial use 0.2 after the first convolution.",
        ),
        size_multiple=8,
        minimum_size=8,
        fixed_size=False,
        recipe="Adam 1e-4, polynomial decay 0.9 over 300 epochs, L2 1e-5, batch 1, crops of 160×192×128, "
        "soft Dice of nested regions with the autoencoder's losses (here without)",
        recipe_fields=MIRROR_SCALE_SHIFT
        | {
            "data.patch_size": (128, 192, 160),
            "train.epochs": 300,
            "train.steps_per_epoch": 285,  # the cases of BraTS2018, one by one
            "train.batch_size": 1,
            "train.loss": "dice",
            "train.target": "regions",
            "train.dice_squared": True,
            "train.optimiser": "adam",
            "train.learning_rate": 1e-4,
            "train.weight_decay": 1e-5,
            "train.precision": "fp32",
            "model_options.segresnet.dropout_prob": 0.2,
        },
        parameters_4to4=4_702_244,
        gmacs_128=148.04,
    )
)
def segresnet(
    in_channels: int,
    out_channels: int,
    _image_size: tuple[int, int, int],
    *,
    init_filters: int = 16,
    dropout_prob: float = 0.0,
) -> nn.Module:
    """Build SegResNet with 1, 2, 2, 4 residual blocks on the way down and 1, 1, 1 on the way up.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        init_filters: filters at full resolution, doubled at each of the three halvings; a multiple of 8.
        dropout_prob: probability of dropping a channel after the first convolution.

    Raises:
        ModelError: `init_filters` is no multiple of 8, or `dropout_prob` no probability.
    """
    multiple_of("segresnet", _NORM_GROUPS, init_filters=init_filters)
    probability("segresnet", dropout_prob=dropout_prob)
    from monai.networks.nets.segresnet import SegResNet

    return SegResNet(
        spatial_dims=3,
        init_filters=init_filters,
        in_channels=in_channels,
        out_channels=out_channels,
        dropout_prob=dropout_prob or None,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )
