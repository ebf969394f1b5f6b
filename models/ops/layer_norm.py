"""Layer norm in the precision of what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.precision import no_autocast

_HALF = (torch.bfloat16, torch.float16)


def layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`torch.nn.functional.layer_norm`, within an autocast region too in the type of x.

    Statistics and arithmetic are fp32 either way. Autocast copies half precision to fp32, keeps the copy for the
    backward pass, and writes an fp32 result that the next layer rounds; here the result is rounded at once, and weight
    and bias before.

    Args:
        x: (..., *shape).
        shape: axes to normalise over.
        weight: `shape` or None.
        bias: likewise.
        eps: added to the variance.

    Returns:
        As x in shape and type.
    """
    if x.dtype not in _HALF:
        return F.layer_norm(x, list(shape), weight, bias, eps)
    with no_autocast(x.device.type):
        scale, shift = (None if one is None else one.to(x.dtype) for one in (weight, bias))
        return F.layer_norm(x, list(shape), scale, shift, eps)
