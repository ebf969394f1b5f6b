"""Rates of stochastic depth (Huang et al. 2016, arXiv:1603.09382)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def rising_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Probabilities that blocks are dropped: from 0 to `rate` evenly over all blocks, by stage.

    Args:
        rate: of the last block.
        depths: blocks in each stage.
    """
    rates = iter(torch.linspace(0, rate, sum(depths), device="cpu").tolist())
    return [[next(rates) for _ in range(depth)] for depth in depths]
