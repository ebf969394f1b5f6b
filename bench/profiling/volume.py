"""How long one case takes: a sliding window over a whole volume, with its mirror images or without."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

from bench.engine.graph import ReplayedModule
from bench.engine.infer import SlidingWindow
from bench.profiling.instruments import Instruments
from bench.profiling.network import PROTOCOL, Pass, build, measure, owned_bytes
from bench.profiling.setting import Setting
from bench.protocol import load_protocol


def measure_volume(setting: Setting, tools: Instruments) -> dict[str, Any]:
    """Time the engine's inference from a volume in main memory to its averaged logits on the device.

    Of ``setting.more``: ``shape`` (D, H, W) of the volume in voxels, ``overlap`` of neighbouring windows, ``flips``, 8
    for the average over all mirror images and 1 for none; the rest is the paper's protocol.
    """
    shape = tuple(setting.more["shape"])
    axes = (0, 1, 2) if setting.more["flips"] == 8 else ()
    changes = {"precision": setting.precision, "overlap": setting.more["overlap"], "mirror_axes": axes}
    fields = load_protocol(PROTOCOL).infer.model_copy(update=changes)
    network = build(setting, tools.device)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if setting.channels_last:
        network.to(memory_format=torch.channels_last_3d)
    if setting.fused:
        from models.fusion import fuse

        fuse(network)
    forward = cast(nn.Module, torch.compile(network)) if setting.compile else network
    if setting.graph:
        forward = ReplayedModule(forward)
    window = SlidingWindow(forward, setting.image_size, fields, tools.device)
    image = torch.randn(setting.in_channels, *shape, generator=torch.Generator().manual_seed(0))
    windows = 0

    def on_window(done: int, total: int) -> None:
        nonlocal windows
        windows = total
        tools.on_pass(f"window {done}/{total}")

    work = Pass(lambda _mark: window.logits(image, on_window), lambda: iter(()))
    found = measure(work, tools, lambda: owned_bytes(network, work), many=True)
    seconds = found["time"]["median_s"]
    return {
        **found,
        "parameters": parameters,
        "case_s": seconds,
        "voxels_per_s": math.prod(shape) / seconds,
        "windows": windows,
        "at_once": window.at_once,
    }
