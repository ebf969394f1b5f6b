"""How much memory a job took: three numbers that are often mistaken for each other."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

GIB = 2**30
_PROCESS = Path("/proc/self")
# Part of each GPU's memory that this process may take at all, by the device's number.
_SHARES: dict[int | None, float] = {}
# What libraries beneath torch's allocators say.
_SIGNS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


def reset_peak(device: torch.device) -> None:
    """Begin to measure anew, so that a job is not charged with the peak of the one before it."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # Linux: forget the largest resident size so far
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> dict[str, int]:
    """Peaks since `reset_peak`, in bytes.

    ``peak_process_bytes`` is this process's resident memory; on systems other than Linux, its peak since the process
    began. On a GPU ``peak_allocated_bytes`` is what tensors took, with what recorded graphs hold for theirs (at most
    that: it is all added to a peak that may have come before the graph), ``peak_reserved_bytes`` what the allocator
    held for them, and ``driver_used_bytes`` what the driver shows now, other processes included.
    """
    facts = {"peak_process_bytes": _peak_process_bytes()}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.max_memory_reserved(device)
        facts |= {
            # What was reserved holds the tensors and the graphs' pools, so that no sum of the two is larger.
            "peak_allocated_bytes": min(torch.cuda.max_memory_allocated(device) + _held_by_graphs(device), reserved),
            "peak_reserved_bytes": reserved,
            "driver_used_bytes": total - free,
        }
    return facts


def _held_by_graphs(device: torch.device) -> int:
    """Bytes in the pools of CUDA graphs that no tensor has: a replay takes them without telling the allocator."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == index and tuple(segment["segment_pool_id"]) != (0, 0)
    )


def share_device(device: torch.device, share: float) -> None:
    """Let this process take no more than that part of a GPU's memory, since others have the rest of it."""
    if device.type == "cuda" and share < 1:
        _SHARES[device.index] = share
        torch.cuda.set_per_process_memory_fraction(share, device)


@contextmanager
def limit_memory(device: torch.device, limit: int | None) -> Iterator[None]:
    """Let a GPU's allocator hold at most ``limit`` bytes in this process, for None all it may; then as it was."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_per_process_memory_fraction(device)
    total = torch.cuda.get_device_properties(device).total_memory
    most = _SHARES.get(device.index, 1.0)
    share = most if limit is None else min(limit / total, most)
    _set_share(share, before, device)
    try:
        yield
    finally:
        _set_share(before, share, device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _set_share(share: float, before: float, device: torch.device) -> None:
    if share < before:  # what the allocator keeps unused may be more than it may hold from here on
        torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share, device)


def _peak_process_bytes() -> int:
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
