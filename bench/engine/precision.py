"""The arithmetic of a network's passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.fields import Precision

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Passes of a network under a precision; what was set before comes back afterwards.

    ``fp32`` and ``tf32`` switch the tensor cores' short products off and on for convolutions and matrix products alike,
    which PyTorch by default does for convolutions only; ``bf16`` and ``fp16`` are autocast over ``tf32``.
    """
    short = precision != "fp32"
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = short
    dtype = _AUTOCAST.get(precision)
    try:
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
