"""Instance normalisation with what follows it in a block: a residual and a leaky ReLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelError
from models.ops.backend import choose
from models.ops.precision import at_least_fp32, no_autocast


def instance_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    negative_slope: float | None = None,
    residual: Tensor | None = None,
    normalise_residual: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Normalise each channel of each sample over space, add a residual and apply a leaky ReLU.

    Instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022) as the residual blocks of nnU-Net and MONAI use it
    (He et al. 2015, arXiv:1512.03385): y = act(weight · norm(x) + bias + r), where norm(x) = (x - mean) / √(var + eps)
    with mean and biased variance over the spatial axes, and r is nothing, the residual or norm(residual). Statistics
    and sums are fp32, or fp64 where x is; autocast has no say in it.

    ``triton`` keeps little for the backward pass. A leaky ReLU can be inverted: where one follows and there are neither
    weight nor bias, y is kept instead of x, which the next convolution keeps anyway (In-Place Activated BatchNorm,
    Rota Bulò et al. 2018, arXiv:1712.02616). norm(x) then is act⁻¹(y) - r, as exact as y was rounded. Otherwise x is
    kept; besides, the residual, unless it is only added and no activation follows, and statistics (B, C) in any case.

    Args:
        x: (B, C, ...) with one spatial axis or more, more than one element in space.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        eps: added to the variance.
        negative_slope: of the leaky ReLU; 0 for a ReLU, None for no activation.
        residual: as x in shape, of any floating-point type.
        normalise_residual: whether the residual is normalised too, without weight and bias.
        backend: ``torch`` or ``triton``; by default ``triton`` for tensors in channels last on a GPU where it is
            installed. Half precision is rounded once by ``triton``, and by ``torch`` after each of the steps.

    Returns:
        y as x in shape, dtype and memory format, channels first or last. Differentiable with respect to x, weight, bias
        and residual, by ``triton`` once.

    Raises:
        ModelError: a shape or dtype does not fit, space has a single element, there is no residual to normalise, or the
            backend is unknown or cannot run.
    """
    _check(x, weight, bias, residual, normalise_residual)
    with no_autocast(x.device.type):
        if choose("instance_norm", backend, x, obstacle=_obstacle(x)) == "torch":
            return _torch(x, weight, bias, eps, negative_slope, residual, normalise_residual)
        from models.ops.triton_norm import instance_norm as by_triton

        return by_triton(x, weight, bias, residual, eps, negative_slope, normalise_residual)


def _torch(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    negative_slope: float | None,
    residual: Tensor | None,
    normalise_residual: bool,
) -> Tensor:
    dtype = at_least_fp32(x.dtype)
    scale, shift = (None if one is None else one.to(dtype) for one in (weight, bias))
    y = _normalised(x, scale, shift, eps)
    if residual is not None:
        y = y + (_normalised(residual, None, None, eps) if normalise_residual else residual).to(y.dtype)
    if negative_slope is not None:
        y = F.leaky_relu(y, negative_slope)
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if _is_channels_last(x) else y.contiguous()


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    # All of space in one axis: with more, PyTorch 2.15 on a CPU takes the gradient of a single sample in channels last
    # for one in channels first, and what comes out is wrong. The bias apart: PyTorch 2.11 on a GPU fails backwards
    # where there is one without a weight.
    y = F.instance_norm(x.flatten(2), weight=weight, bias=None if weight is None else bias, eps=eps)
    return (y if weight is not None or bias is None else y + bias[:, None]).view(x.shape)


def _is_channels_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


def _obstacle(x: Tensor) -> str | None:
    if _is_channels_last(x):
        return None
    return f"x has strides {x.stride()}; it takes channels last, which x.to(memory_format=...) makes"


def _check(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, normalise_residual: bool
) -> None:
    for name, tensor in {"x": x, "weight": weight, "bias": bias, "residual": residual}.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ModelError(f"instance_norm: {name} must be floating point; got {tensor.dtype}.")
    if x.dim() < 3 or x.numel() == 0:
        raise ModelError(f"instance_norm: x must be (B, C, ...) with spatial axes, none of them 0; got {_shape(x)}.")
    if x.shape[2:].numel() == 1:
        raise ModelError(
            f"instance_norm: x must have more than one element in space to be normalised over it; got {_shape(x)}."
        )
    for name, tensor in {"weight": weight, "bias": bias}.items():
        if tensor is not None and tensor.shape != x.shape[1:2]:
            raise ModelError(f"instance_norm: {name} must be ({x.shape[1]},) for x {_shape(x)}; got {_shape(tensor)}.")
    if residual is None and normalise_residual:
        raise ModelError("instance_norm: normalise_residual needs a residual; got None.")
    if residual is not None and residual.shape != x.shape:
        raise ModelError(f"instance_norm: residual must be {_shape(x)} as x is; got {_shape(residual)}.")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
