"""How many multiply-accumulates one inference takes.

Convolutions (dense, grouped, depth-wise, transposed), matrix products and attention are counted by PyTorch's
`FlopCounterMode` from the shapes of the tensors; the selective scan, which it does not know, by the formula of
`scan_flops`. Norms, activations, sums and interpolation are not counted, as is usual.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from models.ops import selective_scan

# Per state and token, as mamba-ssm counts: δA, exp, δB, times u, decay times state, plus, times C, and its sum.
_FLOPS_PER_STATE = 9


@dataclass(frozen=True)
class OperationCount:
    """Multiply-accumulates of one inference; two floating-point operations each.

    Attributes:
        convolution: of all kinds of convolutions.
        matrix_product: of linear layers and attention.
        scan: of selective scans.
    """

    convolution: int
    matrix_product: int
    scan: int

    @property
    def total(self) -> int:
        """All together."""
        return self.convolution + self.matrix_product + self.scan


def count_operations(network: nn.Module, in_channels: int, image_size: Sequence[int], batch: int = 1) -> OperationCount:
    """Count what one inference takes, from shapes alone: nothing is computed and the network is not touched.

    Args:
        network: takes images (batch, in_channels, *image_size).
        in_channels: number of image channels.
        image_size: (D, H, W) in voxels.
        batch: images at once.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(batch, in_channels, *image_size, device="meta")
    counter, scans = FlopCounterMode(display=False), _ScanCounter()
    with torch.no_grad(), counter, scans:
        shadow(image)
    by_operator = counter.get_flop_counts().get("Global", {})
    convolution = sum(flops for operator, flops in by_operator.items() if "convolution" in str(operator))
    return OperationCount(
        convolution=convolution // 2,
        matrix_product=(sum(by_operator.values()) - convolution) // 2,
        scan=scans.flops // 2,
    )


def scan_flops(batch: int, channels: int, length: int, states: int, *, skip: bool, gate: bool) -> int:
    """Floating-point operations of a selective scan: 9·B·D·L·N, and B·D·L each for the skip D·u and the gate.

    It is the accounting of mamba-ssm for the recurrence step by step; kernels that scan in parallel do more.
    """
    return batch * channels * length * (_FLOPS_PER_STATE * states + skip + gate)


class _ScanCounter(TorchFunctionMode):
    """Takes the place of selective scans: counts them and gives a result of the right shape."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self._signature = inspect.signature(selective_scan)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not selective_scan:
            return func(*args, **(kwargs or {}))
        call = self._signature.bind(*args, **(kwargs or {})).arguments
        u: Tensor = call["u"]
        batch, channels, length = u.shape
        states = call["A"].shape[1]
        skip, gate = call.get("D") is not None, call.get("z") is not None
        self.flops += scan_flops(batch, channels, length, states, skip=skip, gate=gate)
        return torch.empty_like(u)
