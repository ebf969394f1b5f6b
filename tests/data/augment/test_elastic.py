"""Elastic displacements: smoothed noise as scipy makes it, never beyond the bound by which patches are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from data.augment.draw import Elastic
from data.augment.elastic import displacements, largest_displacement

CPU = torch.device("cpu")
SIZE = (20, 26, 23)


@pytest.mark.parametrize("sigma", [0.0, 1.3, 4.0])
def test_displacements_are_smoothed_uniform_noise(sigma: float) -> None:
    noise = torch.rand((3, *SIZE), generator=torch.Generator().manual_seed(11)).double().numpy() * 2 - 1
    expected = np.stack([ndimage.gaussian_filter(axis, sigma, mode="constant") * 30 for axis in noise])
    found = displacements(Elastic(30.0, sigma, seed=11), SIZE, CPU)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_the_bound_is_five_standard_deviations() -> None:
    elastic = Elastic(40.0, 1.5, seed=3)
    field = displacements(elastic, (60, 60, 60), CPU)[:, 8:-8, 8:-8, 8:-8]
    assert field.std().item() * 5 == pytest.approx(largest_displacement(elastic), rel=0.03)


def test_a_displacement_beyond_the_bound_is_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of the same sign everywhere, which chance does not bring, would move the middle by the whole magnitude."""
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.ones(size))
    elastic = Elastic(40.0, 1.5, seed=3)
    assert displacements(elastic, SIZE, CPU).max().item() == pytest.approx(largest_displacement(elastic))
    assert largest_displacement(elastic) < 30
