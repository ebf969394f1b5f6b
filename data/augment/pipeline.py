"""All transforms of one patch, in their order."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from data.augment.draw import Drawn
from data.augment.intensity import add_noise, blur, change_contrast, change_gamma, lower_resolution, scale, shift
from data.augment.resample import coordinates, outside, resample_image, resample_label
from data.augment.warp import Warp


def augment(
    image: Tensor,
    label: Tensor,
    drawn: Drawn,
    warp: Warp | None,
    *,
    patch_size: tuple[int, int, int],
    order: int,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Turn what was cut for a sample into its patch, on the device where it is, without waiting for it.

    Args:
        image: (C, d, h, w) float32; smaller than the patch where the volume ends.
        label: (d, h, w) uint8.
        drawn: the parameters of the transforms.
        warp: where the voxels of the patch lie in ``image``; None where they stay in their places.
        patch_size: (D, H, W).
        order: of the spline that resamples the image.
        classes: of the label, background included.

    Returns:
        Image (C, D, H, W) float32 and label (D, H, W) uint8.
    """
    if warp is not None:
        where = coordinates(warp, patch_size, image.device)
        off = outside(warp, where)
        image = resample_image(image, where, order).masked_fill(off, 0)
        label = resample_label(label, where, classes).masked_fill(off, 0)
    else:
        image, label = pad(image, patch_size), pad(label, patch_size)
    image = _change_values(image, drawn)
    if drawn.flips:
        axes = [axis - 3 for axis in drawn.flips]
        image, label = image.flip(axes), label.flip(axes)
    return image, label


def pad(tensor: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Add zeros behind the last three axes until they have a size."""
    missing = [wanted - found for found, wanted in zip(tensor.shape[-3:], size, strict=True)]
    return F.pad(tensor, (0, missing[2], 0, missing[1], 0, missing[0])) if any(missing) else tensor


def _change_values(image: Tensor, drawn: Drawn) -> Tensor:
    if drawn.noise is not None:
        image = add_noise(image, drawn.noise)
    if drawn.blur_sigma is not None:
        image = blur(image, drawn.blur_sigma)
    if drawn.brightness is not None:
        image = scale(image, drawn.brightness)
    if drawn.brightness_shift is not None:
        image = shift(image, drawn.brightness_shift)
    if drawn.contrast is not None:
        image = change_contrast(image, drawn.contrast)
    if drawn.low_resolution is not None:
        image = lower_resolution(image, drawn.low_resolution)
    if drawn.inverted_gamma is not None:
        image = -change_gamma(-image, drawn.inverted_gamma)
    if drawn.gamma is not None:
        image = change_gamma(image, drawn.gamma)
    return image
