"""Weights and an image that anybody can make again, and the fingerprint of what a network gives for them.

The numbers in a tensor are seeded by a hash of its name in its authors' code, so that two implementations of one
network can be given the same weights without either having the other's file.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_SAMPLES, _FIRST, _STRIDE = 64, 12345, 104729


def uniform(name: str, count: int) -> Iterator[np.ndarray]:
    """`count` numbers in [-1, 1), in pieces: the splitmix64 stream seeded with the CRC-32 of `name`."""
    seed = np.uint64(zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 % 2**64)
    piece = 2**16  # stays in the cache
    for begin in range(0, count, piece):
        z = np.arange(begin, min(begin + piece, count), dtype=np.uint64) + seed
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= z >> np.uint64(shift)
            z *= np.uint64(factor)
        z ^= z >> np.uint64(31)
        yield (z >> np.uint64(11)) * 2.0**-52 - 1


def centre_and_spread(name: str, tensor: Tensor) -> tuple[float, float]:
    """Where a tensor's values lie, by its name and shape; see `fill` for the decay rates, which vary."""
    *_, parent, leaf = ("", *name.split("."))
    if leaf == "bias" and parent.startswith("dt_proj"):
        return -4, 2
    if leaf in ("position_embeddings", "relative_position_bias_table"):
        return 0, 0.5
    if tensor.ndim >= 2:
        return 0, math.sqrt(3 / (tensor.numel() / len(tensor)))
    if leaf in ("weight", "gamma", "D", "D_b", "D_s", "running_var"):
        return 1, 0.2
    return 0, 0.1


@torch.no_grad()
def fill(state: Mapping[str, Tensor]) -> None:
    """Overwrite the floating-point tensors of a state dict, in the order of their names: the last alias wins."""
    for name, tensor in sorted(state.items()):
        if not tensor.is_floating_point():
            continue
        if name.rpartition(".")[2] in ("A_log", "A_b_log", "A_s_log"):
            noise = torch.from_numpy(np.concatenate(list(uniform(name, tensor.numel()))))
            tensor.copy_(torch.arange(1, tensor.shape[1] + 1).double().log() + 0.1 * noise.view(tensor.shape))
            continue
        centre, spread = centre_and_spread(name, tensor)
        flat = tensor.view(-1)
        begin = 0
        for numbers in uniform(name, tensor.numel()):
            flat[begin : begin + len(numbers)] = torch.from_numpy(centre + spread * numbers)
            begin += len(numbers)


def image(channels: int, size: Sequence[int]) -> Tensor:
    """(1, C, D, H, W): a slow sine through memory."""
    return torch.sin(0.05 * torch.arange(channels * math.prod(size)).double()).float().view(1, channels, *size)


def summary(output: Tensor) -> dict[str, Any]:
    """Shape, statistics and sampled values of an output."""
    flat = output.detach().double().flatten()
    indices = [(_FIRST + _STRIDE * j) % len(flat) for j in range(_SAMPLES)]
    return {
        "shape": list(output.shape),
        "mean": flat.mean().item(),
        "std": flat.std(correction=0).item(),
        "min": flat.min().item(),
        "max": flat.max().item(),
        "l2": flat.norm().item(),
        "indices": indices,
        "values": flat[indices].tolist(),
    }


def fingerprint(network: nn.Module, size: Sequence[int], **source: str) -> dict[str, Any]:
    """Fill somebody's network with 4 input channels and say what it gives, in the form of the files beside this one."""
    state = network.state_dict()
    fill(state)
    with torch.no_grad():
        output = network.eval()(image(4, size))
    return {
        **source,
        "in_channels": 4,
        "out_channels": output.shape[1],
        "input_size": list(size),
        "n_params": sum(p.numel() for p in network.parameters()),
        "state_dict": [[key, list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()],
        "torch": torch.__version__,
        "outputs_fp32": [summary(output)],
    }
