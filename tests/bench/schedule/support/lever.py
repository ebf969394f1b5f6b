"""A network whose Dice its learning rate decides; a plug-in, so that every process knows it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from models import card, register

_BRIGHT = 1.0


class Lever(nn.Module):
    """Calls bright voxels a tumour as soon as its one parameter has moved up far enough from 0, and none before."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.classes = out_channels
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        bright = (images.mean(dim=1) > _BRIGHT).float()
        tumour = self.gain * (2 * bright - 1) - 1e-3
        logits = torch.zeros(len(images), self.classes, *images.shape[2:], device=images.device)
        return torch.cat([logits[:, :1], tumour[:, None], logits[:, 2:] - 9], dim=1)


@register(replace(card("segresnet"), name="lever", title="For tests", size_multiple=1, minimum_size=1))
def lever(in_channels: int, out_channels: int, image_size: tuple[int, int, int]) -> nn.Module:  # noqa: ARG001
    return Lever(out_channels)
