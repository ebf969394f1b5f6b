"""Authors' recipes as fields of a training protocol, see `models.card.ModelCard.recipe_fields`."""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]

# nnU-Net's own (nnUNetTrainer of versions 1 and 2), which several networks were published with.
NNUNET: Fields = {
    "data.patch_size": (128, 128, 128),
    "data.normalise": "brain",
    "train.epochs": 1000,
    "train.steps_per_epoch": 250,
    "train.batch_size": 2,
    "train.loss": "dice_ce",
    "train.dice_background": False,
    "train.deep_supervision": True,
    "train.optimiser": "sgd",
    "train.learning_rate": 1e-2,
    "train.momentum": 0.99,
    "train.weight_decay": 3e-5,
    "train.schedule": "poly",
    "train.poly_power": 0.9,
    "train.clip_norm": 12,
    "train.precision": "fp16",
}

# MONAI's transforms for BraTS: mirroring, and every channel scaled and shifted by up to a tenth.
MIRROR_SCALE_SHIFT: Fields = {
    "augment.rotation_probability": 0,
    "augment.scaling_probability": 0,
    "augment.noise_probability": 0,
    "augment.blur_probability": 0,
    "augment.contrast_probability": 0,
    "augment.low_resolution_probability": 0,
    "augment.inverted_gamma_probability": 0,
    "augment.gamma_probability": 0,
    "augment.brightness_probability": 1,
    "augment.brightness_range": (0.9, 1.1),
    "augment.brightness_shift_probability": 1,
    "augment.brightness_shift_channel_probability": 1,
    "augment.brightness_shift_std": 0.058,  # of the uniform distribution in ±0.1
}
