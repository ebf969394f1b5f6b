"""The selective scan by the CUDA kernel of the package mamba-ssm."""

from __future__ import annotations

from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """See `models.ops.scan.selective_scan`; up to 256 states, and parameters in fp32."""

    def as_input(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(u.dtype).contiguous()

    def as_parameter(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.float().contiguous()

    y: Tensor = selective_scan_fn(
        as_input(u),
        as_input(delta),
        as_parameter(A),
        as_input(B),
        as_input(C),
        as_parameter(D),
        as_input(z),
        as_parameter(delta_bias),
        delta_softplus,
    )
    return y
