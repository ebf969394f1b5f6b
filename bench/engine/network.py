"""Building the network of a job or of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import models
from bench.engine.regions import channel_regions
from bench.errors import BenchError
from bench.fields import Target
from data.card import DatasetCard
from models.errors import ImageSizeError


def build_network(
    name: str,
    options: Mapping[str, Any],
    card: DatasetCard,
    patch_size: tuple[int, int, int],
    device: torch.device,
    target: Target = "classes",
) -> nn.Module:
    """The registered network, with one input per channel and one output per class of the dataset, or per region.

    Which of them, says ``target``, the protocol's ``train.target``.

    It is initialised on the CPU, so that a seed means the same weights on every device.

    Raises:
        ModelError: an unknown model or option.
        BenchError: a patch size that the model does not take, or regions that it cannot be trained on.
    """
    resolved = models.resolve_options(name, options)
    given, wanted = len(card.channels), count_channels(card, target)
    try:
        model = models.create(name, in_channels=given, out_channels=wanted, image_size=patch_size, **resolved)
    except ImageSizeError as error:
        patch = ",".join(map(str, error.above))
        raise BenchError(
            f"{error} A network is built for the protocol's patch: --set data.patch_size={patch}"
        ) from None
    return model.to(device)


def count_channels(card: DatasetCard, target: Target) -> int:
    """How many channels a network of this dataset returns: one for each class, or for each region.

    Raises:
        BenchError: regions that networks cannot be trained on.
    """
    return len(channel_regions(target, card.regions)) or card.classes
