"""Depth-wise 3D convolution, each channel with taps of its own, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelError
from models.ops.backend import choose
from models.ops.precision import has_autocast

_STRIDES = (1, 2)

Size = int | Sequence[int]


def depthwise_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding: Size = 0,
    backend: str | None = None,
) -> Tensor:
    """Convolve each channel with a filter of its own.

    Equal to ``F.conv3d(x, weight, bias, stride, padding, groups=C)``. Large filters of this kind are those of ConvNeXt
    (Liu et al. 2022, arXiv:2201.03545), in 3D of 3D UX-Net (arXiv:2209.15076) and MedNeXt (arXiv:2303.09975). Under
    autocast x is cast as `F.conv3d` casts it.

    Args:
        x: (B, C, D, H, W), floating point.
        weight: (C, 1, k, k, k), k odd. ``triton`` takes it as it is, whatever x is in; ``torch`` in x's dtype.
        bias: (C,), treated alike.
        stride: 1 or 2, the same along all axes.
        padding: zeros at both ends of all axes, or of each of the three.
        backend: ``torch``, which is `F.conv3d`; or ``triton``, whose sums are fp32, or fp64 where x is; by default
            ``triton`` for channels-last x on a GPU where it is installed.

    Returns:
        (B, C, D', H', W') in x's dtype with D' = ⌊(D + 2 · padding - k) / stride⌋ + 1, and so on; channels last, and
        x copied if it is not, by ``triton``. Differentiable with respect to x, weight and bias, by ``triton`` once.

    Raises:
        ModelError: a shape, dtype or size does not fit, or the backend is unknown or cannot run.
    """
    name = "depthwise_conv3d"
    strides, pads, kernel = _checked(name, x, weight, bias, stride, padding)
    if any(size + 2 * pad < kernel for size, pad in zip(x.shape[2:], pads, strict=True)):
        raise ModelError(
            f"{name}: x with its padding must hold the filter of {kernel}³; got x {tuple(x.shape)} and padding {pads}."
        )
    x = _autocast(x)
    if _choose(name, backend, x) == "torch":
        return F.conv3d(x, *_like(x, weight, bias), stride=strides, padding=pads, groups=x.shape[1])
    from models.ops.triton_depthwise import convolution

    y: Tensor = convolution(x, weight, bias, strides, list(pads))
    return y


def depthwise_conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    backend: str | None = None,
) -> Tensor:
    """The transpose of `depthwise_conv3d`: what leads from its output back to its input.

    Equal to ``F.conv_transpose3d(x, weight, bias, stride, padding, output_padding, groups=C)``.

    Args:
        x: as for `depthwise_conv3d`, as are weight, bias, stride and backend.
        weight: (C, 1, k, k, k).
        bias: (C,).
        stride: 1 or 2.
        padding: how many planes are cut off at both ends of all axes, or of each of the three.
        output_padding: how many are left on at the last end; less than stride.
        backend: ``torch`` or ``triton``.

    Returns:
        (B, C, D', H', W') in x's dtype with D' = (D - 1) · stride - 2 · padding + k + output_padding, and so on; laid
        out and differentiable as what `depthwise_conv3d` returns.

    Raises:
        ModelError: a shape, dtype or size does not fit, or the backend is unknown or cannot run.
    """
    name = "depthwise_conv_transpose3d"
    strides, pads, kernel = _checked(name, x, weight, bias, stride, padding)
    more = _triple(name, "output_padding", output_padding)
    if max(more) >= strides:
        raise ModelError(f"{name}: output_padding must be less than the stride, {strides}; got {more}.")
    sizes = [
        (size - 1) * strides - 2 * pad + kernel + extra
        for size, pad, extra in zip(x.shape[2:], pads, more, strict=True)
    ]
    if min(sizes) < 1:
        raise ModelError(f"{name}: padding must leave something; got {pads}, which leaves {tuple(sizes)}.")
    x = _autocast(x)
    if _choose(name, backend, x) == "torch":
        filters = _like(x, weight, bias)
        return F.conv_transpose3d(x, *filters, stride=strides, padding=pads, output_padding=more, groups=x.shape[1])
    from models.ops.triton_depthwise import transposed_convolution

    y: Tensor = transposed_convolution(x, weight, bias, strides, list(pads), sizes)
    return y


def _autocast(x: Tensor) -> Tensor:
    """x in the type of an autocast region, which leaves fp64 alone."""
    device_type = x.device.type
    if x.dtype == torch.float64 or not has_autocast(device_type):
        return x
    return x.to(torch.get_autocast_dtype(device_type)) if torch.is_autocast_enabled(device_type) else x


def _like(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.to(x.dtype), None if bias is None else bias.to(x.dtype)


def _choose(name: str, backend: str | None, x: Tensor) -> str:
    return choose(name, backend, x, preferred=x.is_contiguous(memory_format=torch.channels_last_3d))


def _checked(
    name: str, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size
) -> tuple[int, tuple[int, int, int], int]:
    """Stride, padding of each axis and k, if everything fits."""
    for what, tensor in {"x": x, "weight": weight, "bias": bias}.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ModelError(f"{name}: {what} must be floating point; got {tensor.dtype}.")
    if x.dim() != 5 or x.numel() == 0:
        raise ModelError(f"{name}: x must be (B, C, D, H, W), none of them 0; got {tuple(x.shape)}.")
    channels, kernel = x.shape[1], weight.shape[-1] if weight.dim() else 0
    if weight.shape != (channels, 1, kernel, kernel, kernel) or kernel % 2 == 0:
        raise ModelError(
            f"{name}: weight must be (C, 1, k, k, k) with C = {channels} as in x and k odd; got {tuple(weight.shape)}."
        )
    if bias is not None and bias.shape != (channels,):
        raise ModelError(f"{name}: bias must be ({channels},) for x {tuple(x.shape)}; got {tuple(bias.shape)}.")
    strides = set(_triple(name, "stride", stride))
    if len(strides) > 1 or not strides <= set(_STRIDES):
        raise ModelError(f"{name}: stride must be 1 or 2, the same along all axes; got {stride}.")
    return strides.pop(), _triple(name, "padding", padding), kernel


def _triple(name: str, what: str, value: Size) -> tuple[int, int, int]:
    values = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(values) != 3 or not all(isinstance(one, int) and one >= 0 for one in values):
        raise ModelError(f"{name}: {what} must be an integer of at least 0 or three of them; got {value!r}.")
    return values
