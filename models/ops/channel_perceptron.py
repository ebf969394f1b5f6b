"""A perceptron of one hidden layer for each channel, applied to every voxel: no channel sees another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelError
from models.ops.backend import choose


def channel_perceptron(
    x: Tensor, widen: Tensor, widen_bias: Tensor, narrow: Tensor, narrow_bias: Tensor, *, backend: str | None = None
) -> Tensor:
    """The depth-wise convolution scaling of 3D UX-Net (Lee et al. 2022, arXiv:2209.15076, section 3.2).

    For channel c of H hidden ones each: narrow_bias[c] + Σ_h narrow[c, h] · gelu(widen[c, h] · x + widen_bias[c, h]),
    with the exact GELU. As convolutions it makes a tensor H times larger; by ``triton`` nothing is made but the result,
    and the backward pass computes the hidden channels again from x.

    Args:
        x: (B, C, D, H, W); in an autocast region it is cast to the region's type, sums are fp32.
        widen, widen_bias, narrow: (C, H).
        narrow_bias: (C,).
        backend: ``torch``, by two grouped convolutions, or ``triton``; by default ``triton`` for tensors on a GPU that
            lie with channels last.

    Returns:
        The same shape and layout as x. Differentiable with respect to everything.

    Raises:
        ModelError: a shape does not fit, or the backend is unknown or cannot run.
    """
    channels, hidden = widen.shape
    expected = {
        "widen_bias": (widen_bias, (channels, hidden)),
        "narrow": (narrow, (channels, hidden)),
        "narrow_bias": (narrow_bias, (channels,)),
    }
    if x.dim() != 5 or x.shape[1] != channels:
        raise ModelError(f"channel_perceptron: x must be (B, {channels}, D, H, W); got {tuple(x.shape)}.")
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ModelError(f"channel_perceptron: {name} must be {shape}; got {tuple(tensor.shape)}.")
    last = x.is_contiguous(memory_format=torch.channels_last_3d)
    if choose("channel_perceptron", backend, x, preferred=last) == "torch":
        return _torch(x, widen, widen_bias, narrow, narrow_bias)
    from models.ops.triton_perceptron import perceptron

    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        x = x.to(torch.get_autocast_dtype(device_type))
    found: Tensor = perceptron(x, widen, widen_bias, narrow, narrow_bias)
    return found


def _torch(x: Tensor, widen: Tensor, widen_bias: Tensor, narrow: Tensor, narrow_bias: Tensor) -> Tensor:
    channels, _ = widen.shape
    hidden = F.conv3d(x, widen.reshape(-1, 1, 1, 1, 1), widen_bias.flatten(), groups=channels)
    return F.conv3d(F.gelu(hidden), narrow[..., None, None, None], narrow_bias, groups=channels)
