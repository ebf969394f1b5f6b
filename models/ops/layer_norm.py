"""Layer norm in the precision of what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.precision import no_autocast


def layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`torch.nn.functional.layer_norm`, and within an autocast region bf16 stays bf16.

    Statistics and arithmetic are fp32 either way. Autocast copies bf16 to fp32, keeps the copy for the backward pass,
    and writes an fp32 result that the next layer rounds; here the result is rounded at once, and weight and bias
    before. fp16 is left to autocast: in its range there is no room for sums over all tokens of a scaled loss.

    Args:
        x: (..., *shape).
        shape: axes to normalise over.
        weight: `shape` or None.
        bias: likewise.
        eps: added to the variance.

    Returns:
        As x in shape; bf16 for bf16, and as PyTorch has it for others.
    """
    if x.dtype != torch.bfloat16:
        return F.layer_norm(x, list(shape), weight, bias, eps)
    with no_autocast(x.device.type):
        scale, shift = (None if one is None else one.to(x.dtype) for one in (weight, bias))
        return F.layer_norm(x, list(shape), scale, shift, eps)
