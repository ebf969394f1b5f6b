"""What the driver of an NVIDIA GPU knows beyond PyTorch: energy, memory of the whole device, who else is there."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

_STAT = Path("/proc/stat")
_LOOK_S = 0.25
# Below this share of one core others are the system's own.
_BUSY_CORES = 0.25
_BUSY_GPU_PERCENT = 5


class Driver:
    """A GPU as NVML sees it; answers None to everything on a CPU, and where NVML is missing or refuses."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._handle: Any = None
        self._nvml: Any = None
        if device.type != "cuda":
            return
        with suppress(Exception):  # whatever is missing, a figure is missing and nothing else
            import pynvml

            pynvml.nvmlInit()
            # By its name and not its number, which CUDA_VISIBLE_DEVICES changes for CUDA alone.
            name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(name)
            self._nvml = pynvml

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded."""
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else found / 1000

    def used_bytes(self) -> int | None:
        """Memory of the device in use, by whomever."""
        found = self._ask("nvmlDeviceGetMemoryInfo")
        return None if found is None else int(found.used)

    def company(self) -> str:
        """Who else uses what is to be measured, in words; empty if nobody is seen."""
        if self._device.type != "cuda":
            busy = _busy_cores()
            return "" if busy is None or busy < _BUSY_CORES else f"{busy:.1f} cores were busy with other work"
        others = [p for p in self._ask("nvmlDeviceGetComputeRunningProcesses") or () if p.pid != os.getpid()]
        if others:
            return f"{len(others)} other processes held the GPU"
        rates = self._ask("nvmlDeviceGetUtilizationRates")
        if rates is not None and rates.gpu > _BUSY_GPU_PERCENT:
            return f"the GPU was busy with other work ({rates.gpu} %)"
        return ""

    def _ask(self, what: str) -> Any:
        if self._handle is None:
            return None
        with suppress(Exception):
            return getattr(self._nvml, what)(self._handle)
        return None


def _busy_cores() -> float | None:
    """Cores at work for others while this process sleeps for a moment; None where /proc is missing."""
    try:
        before, begun = _busy_s(), time.monotonic()
        time.sleep(_LOOK_S)
        return (_busy_s() - before) / (time.monotonic() - begun)
    except (OSError, ValueError, IndexError):
        return None


def _busy_s() -> float:
    fields = [float(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[3] + (fields[4] if len(fields) > 4 else 0.0)
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")
