"""The largest cube that a network infers or trains on within a given memory."""

from __future__ import annotations

import gc
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

import models
from bench.engine.live_memory import peak_tensor_bytes
from bench.engine.memory import is_out_of_memory, limit_memory, reset_peak
from bench.profiling.clock import ignore
from bench.profiling.instruments import Instruments
from bench.profiling.network import build, infer_work, owned_bytes, train_work
from bench.profiling.setting import Setting, Size, size_text

# In the second step the optimiser's state is there.
_PASSES = {"infer": 1, "train": 2}


@dataclass(frozen=True)
class Trial:
    """One size.

    Attributes:
        image_size: (D, H, W) in voxels.
        fits: whether the network ran.
        peak_memory_bytes: what tensors took; where it does not fit, until it failed.
        why: what it failed with.
    """

    image_size: Size
    fits: bool
    peak_memory_bytes: int
    why: str = ""


def measure_ceiling(setting: Setting, tools: Instruments) -> dict[str, Any]:
    """Find the largest cube that fits: sizes are doubled until one does not, then the gap is halved.

    Every size between is assumed to fit as the ones around it do. On a GPU PyTorch's allocator may hold no more than
    ``setting.more["limit_bytes"]``, its reserve included; on a CPU what counts are the bytes of all tensors.

    Returns:
        ``edge`` in voxels, 0 where not even the smallest cube fits; ``image_size`` and ``peak_memory_bytes`` of it;
        every trial; ``finished``: whether the time sufficed to close the gap.
    """
    limit = int(setting.more["limit_bytes"])
    trials: list[Trial] = []

    def fits(edge: int) -> bool:
        tools.on_pass(f"trying {size_text((edge,) * 3)}")
        trials.append(_try(replace(setting, image_size=(edge, edge, edge)), tools, limit))
        return trials[-1].fits

    below, above = 0, 0
    edge = _cube(setting, 1)
    while not above and time.monotonic() < tools.deadline:
        below, above = (edge, 0) if fits(edge) else (below, edge)
        edge = _cube(setting, 2 * edge)
    while above and time.monotonic() < tools.deadline:
        middle = _between(setting, below, above)
        if middle is None:
            break
        below, above = (middle, above) if fits(middle) else (below, middle)
    best = next((trial for trial in trials if trial.fits and trial.image_size[0] == below), None)
    return {
        "edge": below,
        "image_size": list(best.image_size) if best else None,
        "peak_memory_bytes": best.peak_memory_bytes if best else None,
        "tried": [asdict(trial) for trial in trials],
        "finished": bool(above) and _between(setting, below, above) is None,
    }


def _cube(setting: Setting, edge: int) -> int:
    """The smallest cube from ``edge`` that the network takes."""
    while True:
        found = models.nearest_size(setting.model, edge, setting.model_options)
        if found == (edge, edge, edge):
            return edge
        edge = max(edge + 1, found[0] if len(set(found)) == 1 else 0)


def _between(setting: Setting, below: int, above: int) -> int | None:
    """A cube that the network takes, in the middle of what is open; None if there is none."""
    middle = (below + above) // 2
    for edge in (*range(middle, below, -1), *range(middle + 1, above)):
        if models.nearest_size(setting.model, edge, setting.model_options) == (edge, edge, edge):
            return edge
    return None


def _try(setting: Setting, tools: Instruments, limit: int) -> Trial:
    device = tools.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    reset_peak(device)
    why, peak = "", 0
    try:
        with limit_memory(device, limit):
            peak = _run(setting, tools, limit)
    except Exception as error:
        if not is_out_of_memory(error) and not isinstance(error, RuntimeError):
            raise
        # Beyond 2³¹ values some operators refuse to work, which is an end as well.
        why = "out of memory" if is_out_of_memory(error) else str(error).splitlines()[0]
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return Trial(setting.image_size, not why, peak, why)


def _run(setting: Setting, tools: Instruments, limit: int) -> int:
    """Bytes that a network takes on a CPU; a GPU counts them itself."""
    network = build(setting, tools.device)
    make = infer_work if setting.mode == "infer" else train_work
    work = make(network, setting, tools.device)
    if tools.device.type == "cuda":
        for _ in range(_PASSES[setting.mode]):
            work(ignore)
        torch.cuda.synchronize(tools.device)
        return 0
    most = 0
    for _ in range(_PASSES[setting.mode]):
        owned = owned_bytes(network, work)
        with peak_tensor_bytes(tools.device, limit - owned) as peak_bytes:
            work(ignore)
            most = max(most, owned + peak_bytes())
    return most
