"""Where a network runs."""

from __future__ import annotations

import os

import torch

from bench.errors import BenchError


def choose_device(name: str) -> torch.device:
    """The named device, or the GPU where there is one, else the CPU.

    Raises:
        BenchError: no such device here.
    """
    try:
        device: torch.device | None = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise BenchError(f"--device {name!r}: expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BenchError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return device


def choose_workers(asked: int, device: torch.device) -> int:
    """As asked, or for -1: none on the CPU, where they would take the network's cores; else up to eight."""
    if asked >= 0:
        return asked
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
