"""Training losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
    """Cross entropy over mutually exclusive classes, at one or several resolutions.

    With deep supervision the terms are weighted as in nnU-Net (Isensee et al. 2021, supplementary note 2): half as
    much with each halving, the coarsest not at all, the weights summing to one; labels are taken at the nearest voxel.
    The coarsest stays in the sum with its weight of 0, so that its parameters get a gradient, if only zeros:
    distributed training waits for one.

    Args:
        logits: (B, K, D, H, W), or a sequence of such, the first at full size and each other at half the size of the
            one before.
        label: (B, D, H, W), integers.
    """
    if isinstance(logits, Tensor):
        return F.cross_entropy(logits, label)
    weights = [0.5**level for level in range(len(logits))]
    if len(weights) > 1:
        weights[-1] = 0.0
    terms = [
        weight * F.cross_entropy(level, _resize(label, level.shape[2:]))
        for weight, level in zip(weights, logits, strict=True)
    ]
    return sum(terms[1:], terms[0]) / sum(weights)


def _resize(label: Tensor, size: Sequence[int]) -> Tensor:
    if label.shape[1:] == tuple(size):
        return label
    return F.interpolate(label[:, None].float(), size=tuple(size), mode="nearest")[:, 0].to(label.dtype)
