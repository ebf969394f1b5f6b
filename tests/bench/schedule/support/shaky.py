"""A network that goes wrong as its seed says, and takes its time; a plug-in, so that every process knows it."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from models import card, register

OOM, RAISES, NAN = 9, 10, 11
_FAULTY_STEP = 3


class Shaky(nn.Module):
    """Two convolutions; each step takes SHAKY_PAUSE_S seconds more.

    Seeds `OOM`, `RAISES` and `NAN` do in the third step of each process what they are called.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fault = torch.initial_seed()
        self.steps = 0
        self.inner = nn.Conv3d(in_channels, 4, 3, padding=1)
        self.outer = nn.Conv3d(4, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.outer(torch.relu(self.inner(images)))
        if not self.training:
            return logits
        self.steps += 1
        time.sleep(float(os.environ.get("SHAKY_PAUSE_S", 0)))
        if self.steps == _FAULTY_STEP:
            if self.fault == OOM:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB.")
            if self.fault == RAISES:
                raise RuntimeError("a bug in the network")
            if self.fault == NAN:
                return logits * float("nan")
        return logits


@register(replace(card("segresnet"), name="shaky", title="For tests", size_multiple=1, minimum_size=1))
def shaky(in_channels: int, out_channels: int, image_size: tuple[int, int, int]) -> nn.Module:  # noqa: ARG001
    return Shaky(in_channels, out_channels)
