"""Networks taken from elsewhere give the same logits under the same weights as where they come from.

parity/*.json hold fingerprints of the original networks' outputs. Weights and image are made by a recipe
that anybody can repeat: a hash of each tensor's name seeds the numbers in it.
"""

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import models

FINGERPRINTS = Path(__file__).parent / "parity"


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


def centre_and_spread(name: str, tensor: torch.Tensor) -> tuple[float, float]:
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
def fill(network: nn.Module) -> None:
    """Overwrite all floating-point entries of the state dict by the recipe."""
    for name, tensor in network.state_dict().items():
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


def image(channels: int, size: list[int]) -> torch.Tensor:
    """(1, C, D, H, W): a slow sine through memory."""
    return torch.sin(0.05 * torch.arange(channels * math.prod(size)).double()).float().view(1, channels, *size)


@pytest.mark.parametrize(
    ("fingerprint", "name", "left_out"),
    [("segresnet_f16", "segresnet", None), ("unetr_conv_64", "unetr", ".norm_cross_attn.")],
)
def test_logits_equal_those_of_the_original(fingerprint: str, name: str, left_out: str | None) -> None:
    """Same parameters but those that the card says are left out, and same logits at 64 voxels and in sum."""
    original: dict[str, Any] = json.loads((FINGERPRINTS / f"{fingerprint}.json").read_text())
    network = models.create(
        name,
        in_channels=original["in_channels"],
        out_channels=original["out_channels"],
        image_size=original["input_size"],
    ).eval()
    assert {key: list(tensor.shape) for key, tensor in network.state_dict().items()} == {
        key: shape for key, shape, _ in original["state_dict"] if left_out is None or left_out not in key
    }

    fill(network)
    with torch.no_grad():
        logits = network(image(original["in_channels"], original["input_size"]))

    (expected,) = original["outputs_fp32"]
    assert list(logits.shape) == expected["shape"]
    flat = logits.double().flatten()
    values = flat[torch.tensor(expected["indices"])]
    difference = (values - torch.tensor(expected["values"], dtype=torch.float64)).abs().max().item()
    assert difference <= 1e-4 * expected["std"]
    assert flat.mean().item() == pytest.approx(expected["mean"], rel=1e-5, abs=1e-6 * expected["std"])
    assert flat.std(correction=0).item() == pytest.approx(expected["std"], rel=1e-5)
    assert flat.norm().item() == pytest.approx(expected["l2"], rel=1e-5)
