"""Changes of intensity, each against scipy, MONAI or its formula, channel by channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast, ScaleIntensity
from scipy import ndimage
from torch import Tensor

from data.augment.draw import Noise
from data.augment.intensity import add_noise, blur, change_contrast, change_gamma, lower_resolution, scale, shift


def test_noise_is_normal_and_repeats_with_its_seed(image: Tensor) -> None:
    wide = image.repeat(1, 3, 3, 3)
    added = (add_noise(wide, Noise(0.3, seed=2)) - wide).numpy()
    assert added.std() == pytest.approx(0.3, rel=0.03)
    assert abs(added.mean()) < 4 * 0.3 / np.sqrt(added.size)
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 4 / np.sqrt(added[0].size)
    neighbours = np.corrcoef(added[0, :, :, 1:].ravel(), added[0, :, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(added[0].size)
    assert torch.equal(add_noise(image, Noise(0.3, seed=2)), add_noise(image, Noise(0.3, seed=2)))
    assert not torch.equal(add_noise(image, Noise(0.3, seed=2)), add_noise(image, Noise(0.3, seed=3)))


@pytest.mark.parametrize("sigma", [(0.5, 1.0), (None, 0.77), (0.6, None), (None, None)])
def test_blur_is_scipys_on_the_chosen_channels(image: Tensor, sigma: tuple[float | None, ...]) -> None:
    before = image.clone()
    found = blur(image, sigma)
    for channel, width in enumerate(sigma):
        if width is None:
            assert torch.equal(found[channel], image[channel])
        else:
            expected = ndimage.gaussian_filter(image[channel].double().numpy(), width)
            np.testing.assert_allclose(found[channel].numpy(), expected, atol=1e-6)
    assert torch.equal(image, before), "what is given stays as it is"


def test_brightness_is_a_factor_or_a_summand_for_each_channel(image: Tensor) -> None:
    for channel, factor in enumerate((0.8, 1.2)):
        expected = ScaleIntensity(minv=None, maxv=None, factor=factor - 1)(image[channel])
        np.testing.assert_allclose(scale(image, (0.8, 1.2))[channel].numpy(), np.asarray(expected), rtol=1e-6)
    torch.testing.assert_close(
        shift(image, (0.0, -0.3)) - image, torch.tensor([0.0, -0.3]).view(2, 1, 1, 1).expand(image.shape)
    )


@pytest.mark.parametrize("factors", [(0.7, 1.4), (1.3, 0.9)])
def test_contrast_spreads_about_the_mean_within_the_range(image: Tensor, factors: tuple[float, float]) -> None:
    values = image.double().numpy()
    for channel, factor in enumerate(factors):
        one = values[channel]
        expected = np.clip((one - one.mean()) * factor + one.mean(), one.min(), one.max())
        np.testing.assert_allclose(change_contrast(image, factors)[channel].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("exponents", [(0.7, 1.5), (1.2, 0.9)])
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_is_monais_on_each_channel(image: Tensor, exponents: tuple[float, float], inverted: bool) -> None:
    found = -change_gamma(-image, exponents) if inverted else change_gamma(image, exponents)
    for channel, exponent in enumerate(exponents):
        expected = AdjustContrast(exponent, invert_image=inverted, retain_stats=True)(image[channel])
        np.testing.assert_allclose(found[channel].numpy(), np.asarray(expected), atol=5e-6)
        assert found[channel].mean().item() == pytest.approx(image[channel].mean().item(), abs=1e-6)
        assert found[channel].std().item() == pytest.approx(image[channel].std().item(), abs=1e-6)
    assert not torch.allclose(found, image, atol=0.05)


def test_gamma_of_a_constant_channel_is_finite() -> None:
    constant = torch.full((1, 4, 4, 4), 2.5)
    torch.testing.assert_close(change_gamma(constant, (1.3,)), constant)


@pytest.mark.parametrize("shares", [(0.5, 0.71), (0.93, None), (1.0, 0.6)])
def test_low_resolution_is_scipys_zoom_down_and_up(image: Tensor, shares: tuple[float | None, ...]) -> None:
    found = lower_resolution(image, shares)
    for channel, share in enumerate(shares):
        values = image[channel].double().numpy()
        if share is None:
            assert torch.equal(found[channel], image[channel])
            continue
        factors = [np.round(length * share) / length for length in values.shape]
        reduced = ndimage.zoom(values, factors, order=0, mode="nearest", grid_mode=True)
        assert reduced.shape == tuple(np.round(np.array(values.shape) * share))
        back = [whole / length for whole, length in zip(values.shape, reduced.shape, strict=True)]
        expected = ndimage.zoom(reduced, back, order=3, mode="nearest", grid_mode=True)
        expected = np.clip(expected, reduced.min(), reduced.max())
        np.testing.assert_allclose(found[channel].numpy(), expected, atol=1e-6)


def test_a_low_resolution_never_vanishes() -> None:
    thin = torch.randn((1, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    assert lower_resolution(thin, (0.4,)).shape == thin.shape
