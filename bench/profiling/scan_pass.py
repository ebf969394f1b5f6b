"""Timing and weighing the selective scan alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.profiling.bandwidth import copy_bytes_per_s
from bench.profiling.clock import Mark
from bench.profiling.instruments import Instruments
from bench.profiling.network import Pass, measure, owned_bytes
from bench.profiling.operations import scan_flops
from bench.profiling.operators import top_operators
from bench.profiling.scans import SCANS, STATES, VALUE_BYTES, Layout, check_scan, least_bytes
from bench.profiling.setting import PASS_TIME, Setting
from models.ops import resolve_backend, selective_scan

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Step sizes with which Mamba's layers begin (Gu and Dao 2023, arXiv:2312.00752, section 3.6).
STEP_MIN, STEP_MAX = 1e-3, 1e-1
# How far the tokens of a channel lie apart, as a share of that range on a logarithmic scale.
_APART = 0.1
# A GPU scans in less time than Python takes to launch a scan's kernels one by one.
_BURST = 16


class Inputs(NamedTuple):
    """What goes into a scan, in the order of `models.ops.selective_scan`.

    Attributes:
        u, delta, z: (B, D, L).
        A: (D, N); fp32 like D and delta_bias of (D,).
        B, C: (B, N, L).
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor


def measure_scan(setting: Setting, tools: Instruments) -> dict[str, Any]:
    """Time and weigh the passes of one scan, with skip, gate, bias and softplus as in Mamba.

    A training pass is forward and backward of a fixed random gradient of what comes out, with the gradients of all
    that goes in. The kernel of mamba-ssm is called as its users call it, the others through `models.ops`.

    Args:
        setting: ``model`` is a name of `SCANS`, ``in_channels`` the channels, ``image_size`` the volume whose voxels
            are the tokens, ``precision`` the type of u, delta, z, B and C.
        tools: of this process.

    Returns:
        What `measure` finds; ``bytes`` of `least_bytes`, ``copy_bytes_per_s`` of a copy in this process and
        ``floor_s``, the seconds that the bytes take at that rate: what stays in a cache from pass to pass may take
        less. ``operations`` and ``gmacs`` are those of one sequence's forward pass in both modes, as nobody counts a
        backward pass.

    Raises:
        BenchError: as `check_scan`.
        ModelError: the backend cannot run here.
    """
    check_scan(setting.model, setting.precision)
    scan = SCANS[setting.model]
    resolve_backend(scan.backend, torch.empty(0, dtype=_DTYPES[setting.precision], device=tools.device), STATES)
    copied_per_s = copy_bytes_per_s(tools.device, tools.deadline, tools.on_pass)
    tools.on_pass("drawing inputs")
    work = scan_work(setting, tools.device)
    burst = _BURST if tools.device.type == "cuda" else 1
    found = measure(work, tools, lambda: owned_bytes(nn.Module(), work), burst=burst)  # a module without weights
    if tools.operators or tools.trace is not None:
        tools.on_pass("operators")
        found["operators"] = top_operators(work, tools.device, tools.operators, tools.trace)
    return {**found, **_facts(setting, found["time"]["median_s"], copied_per_s)}


def _facts(setting: Setting, seconds: float, copied_per_s: float) -> dict[str, Any]:
    tokens, channels = math.prod(setting.image_size), setting.in_channels
    macs = scan_flops(1, channels, tokens, STATES, skip=True, gate=True) // 2
    moved = least_bytes(setting.mode, setting.batch, channels, tokens, STATES, VALUE_BYTES[setting.precision])
    return {
        "tokens": tokens,
        "gmacs": macs / 1e9,
        "operations": {"convolution": 0, "matrix_product": 0, "scan": macs, "uncounted": {}},
        PASS_TIME[setting.mode]: seconds,
        "voxels_per_s": setting.batch * tokens / seconds,
        "bytes": moved,
        "copy_bytes_per_s": copied_per_s,
        "floor_s": moved / copied_per_s,
    }


def scan_work(setting: Setting, device: torch.device) -> Pass:
    """A pass of a scan, forward alone or with the gradients of all inputs; its inputs are on the device."""
    scan = SCANS[setting.model]
    shape = (setting.batch, setting.in_channels, math.prod(setting.image_size))
    draw = Draw(scan.layout, _DTYPES[setting.precision], device)
    inputs = draw_inputs(shape, draw)
    return _forward(scan.backend, inputs) if setting.mode == "infer" else _training(scan.backend, inputs, draw(shape))


def draw_inputs(shape: Sequence[int], draw: Draw) -> Inputs:
    """Inputs for u of a shape (B, D, L), always the same ones.

    Steps are those of a freshly initialised Mamba: softplus(delta + delta_bias) is between `STEP_MIN` and `STEP_MAX`,
    log-uniform over the channels, the tokens of a channel close together; and A = −(1..N). With steps as small as these
    states remember hundreds of tokens, so that no kernel gains by leaving out what has faded.
    """
    batch, channels, length = shape
    place = _APART / 2 + (1 - _APART) * draw.uniform((channels,))
    bias = _before_softplus(_step(place))
    delta = _before_softplus(_step(place[:, None] + _APART * (draw.uniform(shape) - 0.5))) - bias[:, None]
    rates = torch.arange(1.0, STATES + 1, device=draw.device)
    return Inputs(
        u=draw(shape),
        delta=draw.laid_out(delta),
        A=-rates.repeat(channels, 1),
        B=draw((batch, STATES, length)),
        C=draw((batch, STATES, length)),
        D=torch.ones(channels, device=draw.device),
        z=draw(shape),
        delta_bias=bias,
    )


class Draw:
    """Draws tensors on a device, in a type and a layout; numbers come from the CPU, the same for every device.

    Args:
        layout: as in `bench.profiling.scans.Scan`.
        dtype: of what is not said to be fp32.
        device: where they lie.
    """

    def __init__(self, layout: Layout, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self._layout, self._dtype = layout, dtype
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Normally distributed."""
        return self.laid_out(torch.randn(tuple(shape), generator=self._generator).to(self.device))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Between 0 and 1, fp32."""
        return torch.rand(tuple(shape), generator=self._generator).to(self.device)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """The same (B, D, L) in the type and the layout."""
        tensor = tensor.to(self._dtype)
        return tensor.mT.contiguous().mT if self._layout == "channels_last" else tensor.contiguous()


def _step(place: Tensor) -> Tensor:
    """From a place between 0 and 1 on the logarithmic scale to the step size."""
    return STEP_MIN * (place * math.log(STEP_MAX / STEP_MIN)).exp()


def _before_softplus(steps: Tensor) -> Tensor:
    return steps + torch.log(-torch.expm1(-steps))


def _function(backend: str) -> Callable[..., Tensor]:
    """Takes `Inputs` and whether there is a softplus."""
    if backend == "mamba_ssm":
        # Through `selective_scan` its result would be copied once more, which its users do not have to bear.
        from models.ops.mamba_ssm_scan import selective_scan as published

        return published
    return partial(selective_scan, backend=backend)


def _forward(backend: str, inputs: Inputs) -> Pass:
    scan = _function(backend)

    @torch.no_grad()
    def run(_mark: Mark) -> object:
        return scan(*inputs, True)

    return Pass(run, lambda: iter(inputs))


def _training(backend: str, inputs: Inputs, grad_y: Tensor) -> Pass:
    scan = _function(backend)
    for tensor in inputs:
        tensor.requires_grad_()

    def run(mark: Mark) -> object:
        y = scan(*inputs, True)
        mark("forward")
        gradients = torch.autograd.grad(y, inputs, grad_y)
        mark("backward")
        return gradients

    def starts_from() -> Iterator[Tensor]:
        yield from inputs
        yield grad_y

    return Pass(run, starts_from)
