"""How much memory a job took: three numbers that are often mistaken for each other."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def reset_peak(device: torch.device) -> None:
    """Begin to measure anew, so that a job is not charged with the peak of the one before it."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # Linux: forget the largest resident size so far
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> dict[str, int]:
    """Peaks since `reset_peak`, in bytes.

    ``peak_process_bytes`` is this process's resident memory; on systems other than Linux, its peak since the process
    began. On a GPU ``peak_allocated_bytes`` is what tensors took, ``peak_reserved_bytes`` what the allocator held for
    them, and ``driver_used_bytes`` what the driver shows now, other processes included.
    """
    facts = {"peak_process_bytes": _peak_process_bytes()}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts |= {
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
            "driver_used_bytes": total - free,
        }
    return facts


def _peak_process_bytes() -> int:
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
