"""Changes of the values of a patch: image (C, D, H, W) float32 in, a new one of the same shape out."""

from __future__ import annotations

import torch
from torch import Tensor

from data.augment.draw import Noise, PerChannel, SomeChannels
from data.augment.linear import apply_along_axes, enlarging_matrix, gaussian_matrix, nearest_indices, to_device

_VOXELS = (1, 2, 3)


def add_noise(image: Tensor, noise: Noise) -> Tensor:
    """Add Gaussian noise from a generator of the device; another kind of device gives other noise."""
    generator = torch.Generator(image.device).manual_seed(noise.seed)
    return image + noise.std * torch.randn(image.shape, generator=generator, device=image.device)


def blur(image: Tensor, sigma: SomeChannels) -> Tensor:
    """Smooth channels as `scipy.ndimage.gaussian_filter` does, with reflected borders."""
    smooth = image.clone()
    for channel, width in enumerate(sigma):
        if width is not None:
            matrices = [gaussian_matrix(length, width, "reflect") for length in image.shape[1:]]
            smooth[channel] = apply_along_axes(image[channel, None], matrices)[0]
    return smooth


def scale(image: Tensor, factors: PerChannel) -> Tensor:
    """Multiply each channel by a factor."""
    return image * _column(factors, image)


def shift(image: Tensor, summands: PerChannel) -> Tensor:
    """Add a number to each channel."""
    return image + _column(summands, image)


def change_contrast(image: Tensor, factors: PerChannel) -> Tensor:
    """Spread each channel about its mean; what leaves the range of values it had goes to the range's end."""
    mean = image.mean(_VOXELS, keepdim=True)
    spread = (image - mean) * _column(factors, image) + mean
    return spread.clamp(image.amin(_VOXELS, keepdim=True), image.amax(_VOXELS, keepdim=True))


def lower_resolution(image: Tensor, shares: SomeChannels) -> Tensor:
    """Reduce channels to a share of their size by nearest neighbours, and enlarge them again by cubic splines.

    Both ways as `skimage.transform.resize` with ``mode="edge"`` and no anti-aliasing, which also keeps what the
    splines overshoot within the range of the reduced values.
    """
    coarse = image.clone()
    for channel, share in enumerate(shares):
        if share is None:
            continue
        reduced = image[channel]
        for axis, length in enumerate(image.shape[1:]):
            kept = nearest_indices(length, max(1, round(length * share)))
            reduced = reduced.index_select(axis, to_device(kept, image.device))
        matrices = [enlarging_matrix(*sizes) for sizes in zip(reduced.shape, image.shape[1:], strict=True)]
        coarse[channel] = apply_along_axes(reduced[None], matrices)[0].clamp(reduced.amin(), reduced.amax())
    return coarse


def change_gamma(image: Tensor, exponents: PerChannel) -> Tensor:
    """Raise each channel, brought to 0..1, to a power, and give it its range, mean and standard deviation back."""
    low = image.amin(_VOXELS, keepdim=True)
    extent = image.amax(_VOXELS, keepdim=True) - low + 1e-7
    curved = ((image - low) / extent) ** _column(exponents, image) * extent + low
    std, mean = torch.std_mean(image, _VOXELS, correction=0, keepdim=True)
    curved_std, curved_mean = torch.std_mean(curved, _VOXELS, correction=0, keepdim=True)
    return (curved - curved_mean) / (curved_std + 1e-8) * std + mean


def _column(values: PerChannel, image: Tensor) -> Tensor:
    return to_device(torch.tensor(values, dtype=torch.float32), image.device).view(-1, 1, 1, 1)
