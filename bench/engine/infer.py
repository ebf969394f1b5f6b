"""Segmenting a whole volume with a network that sees patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.engine.diverged import Diverged
from bench.fields import InferFields

OnWindow = Callable[[int, int], None]

# As in SegMamba's released inference. On the CPU more than one is needed: torch convolves single samples with a
# kernel several times slower.
_WINDOWS_AT_ONCE = 2

_GAUSSIAN_SIGMA = 0.125  # of the patch's extent, as in MONAI and nnU-Net
_SMALLEST_WEIGHT = 1e-3


def _ignore(_done: int, _total: int) -> None:
    """Nobody is watching."""


def predict_label(
    model: nn.Module,
    image: NDArray[np.float32],
    patch_size: tuple[int, int, int],
    fields: InferFields,
    device: torch.device,
    on_window: OnWindow = _ignore,
) -> NDArray[np.uint8]:
    """Label map of one prepared volume.

    Args:
        model: maps (B, C, d, h, w) to logits (B, K, d, h, w).
        image: (C, D, H, W) float32.
        patch_size: (d, h, w).
        fields: overlap, blending and flips.
        device: where the network is.
        on_window: told between windows how many are done and how many there are; what it raises ends the work.

    Returns:
        (D, H, W) uint8, the class of the largest logit.
    """
    volume = torch.from_numpy(np.array(image)).to(device)
    logits = predict_logits(model, volume, patch_size, fields, on_window)
    return logits.argmax(dim=0).to(torch.uint8).cpu().numpy()


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    image: Tensor,
    patch_size: tuple[int, int, int],
    fields: InferFields,
    on_window: OnWindow = _ignore,
) -> Tensor:
    """Logits of one volume, (C, D, H, W) to (K, D, H, W), averaged over flips of the whole volume.

    Raises:
        Diverged: a logit is NaN or infinite, so that no class is the largest.
    """
    model.eval()
    flips = [axes for count in range(len(fields.mirror_axes) + 1) for axes in combinations(fields.mirror_axes, count)]
    total: Tensor | None = None
    for turn, axes in enumerate(flips):
        dims = [axis + 1 for axis in axes]

        def on_this_turns(done: int, count: int, turn: int = turn) -> None:
            on_window(turn * count + done, len(flips) * count)

        logits = _slide(model, image.flip(dims), patch_size, fields, on_this_turns).flip(dims)
        total = logits if total is None else total.add_(logits)
    assert total is not None
    if not torch.isfinite(total).all():
        raise Diverged("the network's logits are not finite; its weights are too large or its training diverged")
    return total / len(flips)


def window_starts(extent: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis: evenly stepped, the last one flush with the end."""
    if extent <= patch:
        return [0]
    step = max(int(patch * (1 - overlap)), 1)
    return [*range(0, extent - patch, step), extent - patch]


def window_weights(patch_size: Sequence[int], blend: str, device: torch.device) -> Tensor:
    """Weight of each voxel of a window, (d, h, w): 1, or a Gaussian around its centre, never below 0.001."""
    weights = torch.ones(tuple(patch_size), device=device)
    if blend == "constant":
        return weights
    for axis, extent in enumerate(patch_size):
        offset = torch.arange(extent, device=device, dtype=torch.float32) - (extent - 1) / 2
        profile = torch.exp(-0.5 * (offset / (_GAUSSIAN_SIGMA * extent)) ** 2)
        weights = weights * profile.reshape([-1 if other == axis else 1 for other in range(3)])
    return weights.clamp_min(_SMALLEST_WEIGHT)


def _slide(
    model: nn.Module,
    image: Tensor,
    patch_size: tuple[int, int, int],
    fields: InferFields,
    on_window: OnWindow,
) -> Tensor:
    shape = image.shape[1:]
    padding = [(max(p - n, 0) // 2, max(p - n, 0) - max(p - n, 0) // 2) for n, p in zip(shape, patch_size, strict=True)]
    # F.pad counts axes from the last.
    image = F.pad(image, [side for pair in reversed(padding) for side in pair])
    starts = [
        window_starts(extent, patch, fields.overlap) for extent, patch in zip(image.shape[1:], patch_size, strict=True)
    ]
    weights = window_weights(patch_size, fields.blend, image.device)
    logits: Tensor | None = None
    normaliser = torch.zeros(image.shape[1:], device=image.device)
    windows = [
        tuple(slice(start, start + patch) for start, patch in zip(corner, patch_size, strict=True))
        for corner in product(*starts)
    ]
    for done in range(0, len(windows), _WINDOWS_AT_ONCE):
        on_window(done, len(windows))
        together = windows[done : done + _WINDOWS_AT_ONCE]
        batch = model(torch.stack([image[(slice(None), *window)] for window in together])).float()
        if logits is None:
            logits = torch.zeros((batch.shape[1], *image.shape[1:]), device=image.device)
        for window, found in zip(together, batch, strict=True):
            logits[(slice(None), *window)] += found * weights
            normaliser[window] += weights
    assert logits is not None
    logits /= normaliser
    inner = tuple(slice(before, before + extent) for (before, _), extent in zip(padding, shape, strict=True))
    return logits[(slice(None), *inner)]
