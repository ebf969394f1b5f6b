"""Which operators a pass spends its time in, by torch.profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.profiling.clock import Work

_PASSES = 3


def top_operators(work: Work, device: torch.device, count: int, trace: Path | None) -> list[dict[str, Any]]:
    """The operators that take most time on the device, by the time of their own and not that of operators inside them.

    Args:
        work: one pass; it is warm.
        count: how many are listed; all others together are the last.
        trace: file for a Chrome trace of one pass, which chrome://tracing and Perfetto read; None for none.

    Returns:
        Most first: name, calls and seconds in one pass, share of the time of all operators.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(_PASSES):
            work(lambda _name: None)
        if on_gpu:
            torch.cuda.synchronize(device)
    rows = []
    for entry in found.key_averages():
        # Kernels are listed beside the operators that launch them, which have their time too.
        if on_gpu and entry.device_type != torch.autograd.DeviceType.CPU:
            continue
        microseconds = entry.self_device_time_total if on_gpu else entry.self_cpu_time_total
        if microseconds > 0:
            rows.append((entry.key, entry.count / _PASSES, microseconds / 1e6 / _PASSES))
    rows.sort(key=lambda row: -row[2])
    total = sum(row[2] for row in rows)
    listed = [_row(name, calls, seconds, total) for name, calls, seconds in rows[:count]]
    if rest := rows[count:]:
        listed.append(
            _row(f"{len(rest)} others", sum(row[1] for row in rest), sum(row[2] for row in rest), total),
        )
    if trace is not None:
        with profile(activities=activities) as once:
            work(lambda _name: None)
            if on_gpu:
                torch.cuda.synchronize(device)
        trace.parent.mkdir(parents=True, exist_ok=True)
        once.export_chrome_trace(str(trace))
    return listed


def _row(name: str, calls: float, seconds: float, total: float) -> dict[str, Any]:
    return {"name": name, "calls": calls, "seconds": seconds, "share": seconds / total}
