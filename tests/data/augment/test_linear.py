"""Filters as matrices: scipy's results on whole volumes, and no matter whether others allow short products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import GaussianSmooth
from scipy import ndimage

from data.augment.linear import apply_along_axes, gaussian_matrix, spline_matrix


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.83, 3.0, 6.0])
def test_gaussians_are_scipys(image: torch.Tensor, sigma: float, mode: str) -> None:
    """A kernel of sigma 6 is longer than every axis."""
    found = apply_along_axes(image, [gaussian_matrix(length, sigma, mode) for length in image.shape[1:]])  # type: ignore[arg-type]
    expected = np.stack([ndimage.gaussian_filter(channel.double().numpy(), sigma, mode=mode) for channel in image])
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-7)
    assert found.dtype == torch.float32


def test_a_gaussian_is_monais_where_the_border_is_far() -> None:
    """MONAI's `sampled` kernel holds the same values of the density, and is not normalised: to 1e-4 at sigma 0.9."""
    image = torch.zeros((1, 21, 23, 25))
    image[0, 10, 11, 12] = 1
    found = apply_along_axes(image, [gaussian_matrix(length, 0.9, "reflect") for length in image.shape[1:]])
    expected = GaussianSmooth(sigma=0.9, approx="sampled")(image)
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), atol=1e-4)
    assert found.max() > 0.08


@pytest.mark.parametrize("shape", [(14, 17, 11), (1, 2, 3)])
def test_spline_coefficients_are_scipys(shape: tuple[int, int, int]) -> None:
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = apply_along_axes(volume[None], [spline_matrix(length) for length in shape])[0]
    expected = ndimage.spline_filter(volume.double().numpy(), 3, mode="mirror")
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-6)


def test_each_axis_has_its_own_matrix() -> None:
    image = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(2))
    matrices = [
        torch.randn((6 + n, n), dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (3, 4, 5)
    ]
    expected = torch.einsum("cdhw,id,jh,kw->cijk", image.double(), *matrices)
    torch.testing.assert_close(apply_along_axes(image, matrices), expected.float())
