"""Small images and settings under which everything happens."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from data.augment import Augmentation


@pytest.fixture(scope="session")
def everything() -> Augmentation:
    """nnU-Net's list and elastic deformation, each transform at its own probability."""
    return Augmentation(
        enlarged_cut=True,
        interpolation_order=3,
        rotation_probability=0.2,
        rotation_degrees=30.0,
        scaling_probability=0.25,
        scaling_range=(0.7, 1.4),
        elastic_probability=0.3,
        elastic_magnitude=(0.0, 900.0),
        elastic_sigma=(9.0, 13.0),
        noise_probability=0.1,
        noise_std=(0.0, 0.1),
        blur_probability=0.15,
        blur_channel_probability=0.4,
        blur_sigma=(0.5, 1.0),
        brightness_probability=0.35,
        brightness_range=(0.75, 1.25),
        brightness_shift_probability=0.45,
        brightness_shift_channel_probability=0.6,
        brightness_shift_std=0.1,
        contrast_probability=0.5,
        contrast_range=(0.65, 1.5),
        low_resolution_probability=0.55,
        low_resolution_channel_probability=0.7,
        low_resolution_zoom=(0.5, 1.0),
        inverted_gamma_probability=0.6,
        gamma_probability=0.65,
        gamma_range=(0.7, 1.5),
        mirror_axes=(0, 2),
    )


@pytest.fixture
def image() -> torch.Tensor:
    """(2, 14, 17, 11) float32 of standard deviation 1: rough in its first channel, smooth in its second."""
    noise = torch.randn((2, 14, 17, 11), generator=torch.Generator().manual_seed(3))
    smooth = torch.from_numpy(ndimage.gaussian_filter(noise[1].numpy(), 1.0))
    return torch.stack([noise[0], smooth / smooth.std() + 0.5])
