"""SwinUNETR and SwinUNETR-V2, as MONAI ships them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from models.card import ModelCard
from models.cards.recipes import MIRROR_SCALE_SHIFT
from models.published import Published
from models.registry import register
from models.request import multiple_of, one_of, probability

if TYPE_CHECKING:
    from torch import nn

_HEADS = (3, 6, 12, 24)
_FEATURE_MULTIPLE = 12  # for which the heads divide the channels at every scale
_MERGINGS = ("corrected", "legacy")

_MERGING = (
    'Patches merge their eight voxels in the order that MONAI has had since 1.5; patch_merging="legacy" is that of '
    "MONAI up to 1.4, in which two of the eight come twice and two never; the SegMamba paper names MONAI 1.2.0."
)
_CAUTION = Published(
    caution="the file cannot tell which patch merging it was trained with: weights from MONAI up to 1.4 need "
    'patch_merging="legacy", later ones "corrected", and the wrong one gives wrong results without a sign.'
)

_V1 = ModelCard(
    name="swinunetr",
    title="SwinUNETR: shifted-window transformer encoder, convolutional decoder",
    family="transformer",
    paper="Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI Images, "
    "BrainLes 2021, arXiv:2201.01266",
    year=2022,
    repository="https://github.com/Project-MONAI/MONAI",
    commit="7af492176792f9069b8f1253d099abd05c5e769d (release 1.6.1)",
    licence="Apache-2.0",
    deviations=(_MERGING, "Weights start at random; no pretrained encoder is loaded."),
    size_multiple=32,
    minimum_size=64,
    fixed_size=False,
    recipe="AdamW 8e-4, cosine decay after warm-up, 800 epochs, soft Dice of nested regions, "
    "patches of 128³, batch 1 on each of 8 GPUs",
    recipe_fields=MIRROR_SCALE_SHIFT
    | {
        "train.epochs": 800,
        "train.steps_per_epoch": 125,  # 1,001 cases of BraTS2021 in batches of 8
        "train.batch_size": 8,
        "train.loss": "dice",
        "train.target": "regions",
        "train.optimiser": "adamw",
        "train.learning_rate": 8e-4,
        "train.weight_decay": 1e-5,
        "train.schedule": "cosine",
        "train.warmup_steps": 50 * 125,
    },
    parameters_4to4=62_191_990,
    gmacs_128=771.74,
)
_V2 = replace(
    _V1,
    name="swinunetr_v2",
    title="SwinUNETR-V2: SwinUNETR with a residual convolution before each stage",
    paper="He et al., SwinUNETR-V2: Stronger Swin Transformers with Stagewise Convolutions for 3D Medical Image "
    "Segmentation, MICCAI 2023",
    year=2023,
    recipe="differs by dataset, see the paper",
    recipe_fields=None,
    parameters_4to4=72_767_350,
    gmacs_128=832.9,
)


def _register(card: ModelCard, use_v2: bool) -> None:
    @register(card, _CAUTION)
    def build(
        in_channels: int,
        out_channels: int,
        _image_size: tuple[int, int, int],
        *,
        feature_size: int = 48,
        patch_merging: str = "corrected",
        dropout_path_rate: float = 0.0,
    ) -> nn.Module:
        """Build SwinUNETR with two blocks per stage, heads 3, 6, 12, 24 and windows of 7³ tokens.

        Args:
            in_channels: number of image channels.
            out_channels: number of logits per voxel.
            feature_size: channels at 1/2 of the image, doubled at each halving; a multiple of 12.
            patch_merging: ``corrected``, or ``legacy`` as in MONAI up to 1.4.
            dropout_path_rate: probability that the last block is skipped for a sample in training; less for those
                before.

        Raises:
            ModelError: `feature_size` is no multiple of 12, or an option is out of its range.
        """
        one_of(card.name, "patch_merging", patch_merging, _MERGINGS)
        probability(card.name, dropout_path_rate=dropout_path_rate)
        multiple_of(card.name, _FEATURE_MULTIPLE, feature_size=feature_size)
        from monai.networks.nets.swin_unetr import SwinUNETR

        from models.swin_merging import LegacyPatchMerging

        return SwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=feature_size,
            num_heads=_HEADS,
            dropout_path_rate=dropout_path_rate,
            downsample="merging" if patch_merging == "corrected" else LegacyPatchMerging,
            use_v2=use_v2,
        )


_register(_V1, use_v2=False)
_register(_V2, use_v2=True)
