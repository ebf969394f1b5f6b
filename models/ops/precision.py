"""Keeping numerically delicate operations at full precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context with autocast switched off; a device without autocast, such as meta, needs nothing."""
    return torch.autocast(device_type, enabled=False) if has_autocast(device_type) else nullcontext()


@torch.compiler.assume_constant_result  # PyTorch 2.11's Dynamo cannot look into it
def has_autocast(device_type: str) -> bool:
    """Whether a kind of device knows autocast."""
    return torch.amp.is_autocast_available(device_type)


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """fp32 for the half precisions and fp32, fp64 for fp64."""
    return torch.promote_types(dtype, torch.float32)
