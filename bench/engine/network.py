"""Building the network of a job or of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import models
from data.card import DatasetCard


def build_network(
    name: str,
    options: Mapping[str, Any],
    card: DatasetCard,
    patch_size: tuple[int, int, int],
    device: torch.device,
) -> nn.Module:
    """The registered network, with one input per channel and one output per class of the dataset.

    It is initialised on the CPU, so that a seed means the same weights on every device.

    Raises:
        models.ModelError: an unknown model or option, or a patch size it does not take.
    """
    resolved = models.resolve_options(name, options)
    model = models.create(
        name, in_channels=len(card.channels), out_channels=card.classes, image_size=patch_size, **resolved
    )
    return model.to(device)
