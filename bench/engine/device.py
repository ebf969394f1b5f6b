"""Where a network runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    # With its number, since not everything in torch takes "the current one" for an answer.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_workers(asked: int, device: torch.device) -> int:
    """As asked, or for -1: none on the CPU, where they would take the network's cores; else up to twelve."""
    if asked >= 0:
        return asked
    return 0 if device.type == "cpu" else min(12, os.cpu_count() or 1)


def choose_prepare_workers() -> int:
    """Cases prepared at once: each holds its voxels in memory several times over."""
    return min(8, os.cpu_count() or 1)


def check_devices(device: torch.device, count: int) -> None:
    """See that a job can have that many devices here.

    Raises:
        BenchError: there are fewer.
    """
    if count == 1:
        return
    if device.index:
        raise BenchError(
            f"--device {device} with --gpus-per-job {count}: a job of several takes the first ones; leave --device "
            "out, and choose with CUDA_VISIBLE_DEVICES"
        )
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise BenchError(
            f"--gpus-per-job {count}: this machine has {torch.cuda.device_count()} CUDA devices; ask for no more"
        )


def check_batch(count: int, batch_size: int) -> None:
    """See that devices can share a batch.

    Raises:
        BenchError: not equally.
    """
    if batch_size % count:
        raise BenchError(
            f"--gpus-per-job {count}: train.batch_size={batch_size} patches cannot be shared equally; set it to a "
            f"multiple of {count}, which is another experiment, or ask for fewer devices"
        )


@contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Let operations that have a repeatable form take it, which on a GPU rules the trying out of kernels out too."""
    if not wanted:
        yield
        return
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, fill = torch.backends.cudnn.benchmark, settings.fill_uninitialized_memory
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # it only finds faults, and takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
