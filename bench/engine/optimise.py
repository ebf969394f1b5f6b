"""The optimiser of a protocol, and the rate at each moment of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from bench.fields import TrainFields


def make_optimiser(parameters: Iterable[nn.Parameter], fields: TrainFields) -> torch.optim.Optimizer:
    """SGD in Nesterov's form, Adam or AdamW over every parameter, as the fields say."""
    if fields.optimiser == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=fields.learning_rate,
            momentum=fields.momentum,
            nesterov=fields.momentum > 0,
            weight_decay=fields.weight_decay,
        )
    kind = torch.optim.AdamW if fields.optimiser == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=fields.learning_rate,
        eps=fields.adam_epsilon,
        amsgrad=fields.amsgrad,
        weight_decay=fields.weight_decay,
    )


def learning_rate(fields: TrainFields, step: int, spent: float) -> float:
    """The rate of one step.

    Args:
        fields: initial rate, schedule, warm-up.
        step: optimiser steps done before it.
        spent: share of the budget that is spent, in [0, 1).
    """
    if step < fields.warmup_steps:
        return fields.learning_rate * (step + 1) / fields.warmup_steps
    total = fields.total_steps
    if total is not None and fields.warmup_steps < total:
        spent = (step - fields.warmup_steps) / (total - fields.warmup_steps)
    if fields.schedule == "poly":
        return fields.learning_rate * (1 - spent) ** fields.poly_power
    if fields.schedule == "cosine":
        return fields.learning_rate * (1 + math.cos(math.pi * spent)) / 2
    return fields.learning_rate
