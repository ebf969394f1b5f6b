"""Activation checkpointing: what a backward pass needs is computed again instead of kept (Chen et al. 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# A block may hold this share of what all hold together. Finer blocks keep more inputs, coarser ones need more at once.
_LARGEST_SHARE = 1 / 16

BATCH_NORMS = nn.modules.batchnorm._BatchNorm


def recompute(model: nn.Module, pass_once: Callable[[], object]) -> int:
    """Let the largest blocks that hold little of the kept activations compute theirs again in the backward pass.

    The result is the same, to the rounding of what is computed again. Blocks with batch normalisation are left as they
    are, since a second pass would move their running statistics a second time. It acts in training only.

    Args:
        model: in training mode; its modules are changed in place.
        pass_once: does one forward pass of ``model`` with gradients.

    Returns:
        How many blocks compute theirs again.
    """
    kept = _kept_bytes(model, pass_once)
    limit = kept[model] * _LARGEST_SHARE
    blocks = list(_blocks(model, kept, limit))
    for block in blocks:
        block.forward = partial(_again, block, block.forward)
    return len(blocks)


def _kept_bytes(model: nn.Module, pass_once: Callable[[], object]) -> Counter[nn.Module]:
    """What each module, its parts included, keeps for the backward pass."""
    kept: Counter[nn.Module] = Counter()
    inside: list[nn.Module] = []

    def enter(module: nn.Module, _inputs: Any) -> None:
        inside.append(module)

    def leave(module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        while inside.pop() is not module:
            pass

    def count(tensor: Tensor) -> None:  # and let go of it: nobody goes backward here
        for module in inside:
            kept[module] += tensor.nbytes

    hooks = []
    for module in model.modules():
        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
            pass_once()
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _blocks(module: nn.Module, kept: Counter[nn.Module], limit: float) -> list[nn.Module]:
    parts = list(module.children())
    if not parts:
        return []  # a single operation keeps its input in either case
    if not 0 < kept[module] <= limit:
        finer = [block for part in parts for block in _blocks(part, kept, limit)]
        if finer or not kept[module]:  # a mere list of modules is never passed through, and keeps nothing itself
            return finer
    normalised = any(isinstance(part, BATCH_NORMS) for part in module.modules())
    return [] if normalised else [module]


def _again(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False, **named)
    return forward(*inputs, **named)
