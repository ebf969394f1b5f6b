"""Training losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.engine.regions import RegionLabels
from bench.fields import TrainFields

Loss = Callable[[Tensor | Sequence[Tensor], Tensor], Tensor]
_OneScale = Callable[[Tensor, Tensor], Tensor]

_SMOOTH = 1e-5  # as in nnU-Net and MONAI: a class that is absent and not predicted costs nothing


def make_loss(fields: TrainFields, regions: RegionLabels = ()) -> Loss:
    """The protocol's loss of logits (B, K, D, H, W), or a list of them with deep supervision, and labels (B, D, H, W).

    The K channels are classes that exclude each other, one for each label; or, where there are ``regions``, they are
    those, each against all that is not in it.

    Every term is a mean over patches of equal weight, so that a batch split into equal parts, over time or over
    devices, has the mean of its parts' losses.
    """

    if regions:
        entropy: _OneScale = F.binary_cross_entropy_with_logits
        dice: _OneScale = partial(region_dice, squared=fields.dice_squared)
    else:
        entropy = F.cross_entropy
        dice = partial(soft_dice, background=fields.dice_background, squared=fields.dice_squared)

    def one_scale(logits: Tensor, label: Tensor) -> Tensor:
        logits = logits.float()
        truth = inside(label, regions, logits.dtype) if regions else label
        if fields.loss == "cross_entropy":
            return entropy(logits, truth)
        return dice(logits, truth) if fields.loss == "dice" else dice(logits, truth) + entropy(logits, truth)

    def loss(logits: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
        return one_scale(logits, label) if isinstance(logits, Tensor) else deeply_supervised(logits, label, one_scale)

    return loss


def soft_dice(logits: Tensor, label: Tensor, *, background: bool, squared: bool = False) -> Tensor:
    """One minus the soft Dice of softmax probabilities, the mean over patches and classes.

    The denominator sums squares of probabilities (Milletari et al. 2016, section 3), or probabilities as in nnU-Net.
    A network that calls a rare class everywhere alike is led away from that by squares alone: without them the loss
    falls the more it does so.

    Args:
        logits: (B, K, D, H, W).
        label: (B, D, H, W), integers.
        background: whether class 0 counts.
        squared: whether the denominator sums squares.
    """
    probability = logits.softmax(1)
    truth = torch.zeros_like(probability).scatter_(1, label[:, None], 1.0)
    dice = _dice(probability, truth, squared)
    return 1 - (dice if background else dice[:, 1:]).mean()


def region_dice(logits: Tensor, truth: Tensor, *, squared: bool = False) -> Tensor:
    """One minus the soft Dice of sigmoid probabilities, the mean over patches and regions.

    So trained the winner of BraTS 2018 (Myronenko 2018, section 3), and after him SwinUNETR (Hatamizadeh et al. 2022).

    Args:
        logits: (B, K, D, H, W), one region each.
        truth: of the same shape, 1 inside a region and 0 outside, see `inside`.
        squared: as in `soft_dice`.
    """
    return 1 - _dice(logits.sigmoid(), truth, squared).mean()


def inside(label: Tensor, regions: RegionLabels, dtype: torch.dtype) -> Tensor:
    """(B, K, D, H, W), 1 where a voxel of (B, D, H, W) lies in a region; by comparisons, which a CUDA graph records."""
    masks = []
    for region in regions:
        first, *others = region
        mask = label == first
        for value in others:
            mask |= label == value
        masks.append(mask)
    return torch.stack(masks, 1).to(dtype)


def _dice(probability: Tensor, truth: Tensor, squared: bool) -> Tensor:
    """Soft Dice (B, K)."""
    axes = tuple(range(2, probability.ndim))
    overlap = (probability * truth).sum(axes)
    extent = (probability.square() if squared else probability).sum(axes) + truth.sum(axes)
    return (2 * overlap + _SMOOTH) / (extent + _SMOOTH)


def deeply_supervised(logits: Sequence[Tensor], label: Tensor, one_scale: _OneScale) -> Tensor:
    """The weighted mean of a loss over several resolutions.

    The weights are nnU-Net's (Isensee et al. 2021, supplementary note 2): half as much with each halving, the coarsest
    not at all, summing to one; labels are taken at the nearest voxel. The coarsest stays in the sum with its weight of
    0, so that its parameters get a gradient, if only zeros: distributed training waits for one.

    Args:
        logits: (B, K, D, H, W) each, the first at full size and each other at half the size of the one before.
        label: (B, D, H, W), integers.
        one_scale: the loss at one resolution.
    """
    weights = [0.5**level for level in range(len(logits))]
    if len(weights) > 1:
        weights[-1] = 0.0
    terms = [
        weight * one_scale(level, _resize(label, level.shape[2:]))
        for weight, level in zip(weights, logits, strict=True)
    ]
    return sum(terms[1:], terms[0]) / sum(weights)


def _resize(label: Tensor, size: Sequence[int]) -> Tensor:
    if label.shape[1:] == tuple(size):
        return label
    return F.interpolate(label[:, None].float(), size=tuple(size), mode="nearest")[:, 0].to(label.dtype)
