"""What the driver says of a GPU, from a driver that is made up; and who else is at work."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest
import torch

from bench.profiling import driver
from bench.profiling.driver import Driver


class Fake(types.SimpleNamespace):
    """NVML with one GPU; what a test sets is answered."""

    def __init__(self) -> None:
        super().__init__(asked=[], processes=[], busy=0, energy=0)
        self.nvmlInit = lambda: None
        self.nvmlDeviceGetHandleByUUID = lambda name: self.asked.append(name) or "handle"
        self.nvmlDeviceGetTotalEnergyConsumption = lambda _handle: self.energy
        self.nvmlDeviceGetMemoryInfo = lambda _handle: types.SimpleNamespace(used=7 * 2**30)
        self.nvmlDeviceGetComputeRunningProcesses = lambda _handle: [
            types.SimpleNamespace(pid=pid) for pid in self.processes
        ]
        self.nvmlDeviceGetUtilizationRates = lambda _handle: types.SimpleNamespace(gpu=self.busy)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    properties: Any = types.SimpleNamespace(uuid="1234-5678")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    return fake


def test_a_gpu_is_asked_by_its_name_for_energy_and_memory(nvml: Fake) -> None:
    gpu = Driver(torch.device("cuda:1"))
    nvml.energy = 12_500
    assert nvml.asked == ["GPU-1234-5678"]
    assert gpu.energy_j() == 12.5
    assert gpu.used_bytes() == 7 * 2**30


def test_company_on_a_gpu_is_told(nvml: Fake) -> None:
    gpu = Driver(torch.device("cuda"))
    nvml.processes = [os.getpid()]
    assert gpu.company() == ""
    nvml.busy = 40
    assert gpu.company() == "the GPU was busy with other work (40 %)"
    nvml.processes = [os.getpid(), 1]
    assert gpu.company() == "1 other processes held the GPU"


def test_where_the_driver_refuses_nothing_is_known(nvml: Fake) -> None:
    def refuse(_handle: object) -> None:
        raise OSError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    gpu = Driver(torch.device("cuda"))
    assert gpu.energy_j() is None
    assert gpu.used_bytes() is not None


def test_without_nvml_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpu = Driver(torch.device("cuda"))
    assert (gpu.energy_j(), gpu.used_bytes(), gpu.company()) == (None, None, "")


def test_other_work_on_the_cpu_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(driver, "_STAT", stat)
    ticks = os.sysconf("SC_CLK_TCK")

    def write(busy_s: float, idle_s: float) -> None:
        busy, idle = int(busy_s * ticks), int(idle_s * ticks)
        # The time of guests, the last two, is part of the first two.
        stat.write_text(f"cpu {busy} 0 0 {idle} 0 0 0 0 {busy} 0\ncpu0 1 2 3 4\n")

    write(100, 50)
    monkeypatch.setattr(driver.time, "sleep", lambda _s: write(103, 51))
    moments = iter([10.0, 12.0])
    monkeypatch.setattr(driver.time, "monotonic", lambda: next(moments))
    assert Driver(torch.device("cpu")).company() == "1.5 cores were busy with other work"
    write(100, 50)
    monkeypatch.setattr(driver.time, "sleep", lambda _s: write(100.2, 60))
    moments = iter([10.0, 12.0])
    assert Driver(torch.device("cpu")).company() == ""
    stat.unlink()
    assert Driver(torch.device("cpu")).company() == ""
