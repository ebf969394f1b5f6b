"""A network that does what its option says; a plug-in, so that processes of their own know it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models import card, register


class Moody(nn.Module):
    """A convolution in a good mood; else runs out of memory, raises, hangs, is killed or takes a nap each time."""

    def __init__(self, in_channels: int, out_channels: int, mood: str) -> None:
        super().__init__()
        self.mood = mood
        self.inner = nn.Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        if images.is_meta:
            return logits
        if self.mood == "oom":
            self.kept = torch.ones(25 * 2**20)  # touched, so that the system counts it
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB.")
        if self.mood == "raises":
            raise ZeroDivisionError("a bug in the network")
        if self.mood == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mood == "exits":
            print("farewell")
            os._exit(7)
        if self.mood == "naps":
            time.sleep(0.05)
        if self.mood == "hangs":
            time.sleep(600)
        return logits


def moody(in_channels: int, out_channels: int, image_size: tuple[int, int, int], *, mood: str = "good") -> nn.Module:  # noqa: ARG001
    return Moody(in_channels, out_channels, mood)


def make_known() -> None:
    """Register it in this process."""
    register(replace(card("segresnet"), name="moody", title="For tests", size_multiple=8, minimum_size=8))(moody)


def install(folder: Path) -> None:
    """Put this module into a folder as an installed distribution."""
    (folder / "moody.py").write_text(Path(__file__).read_text() + "\n\nmake_known()\n")
    info = folder / "moody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    (info / "RECORD").write_text("")
    (info / "entry_points.txt").write_text("[segmamba_bench.models]\nmoody = moody:moody\n")
