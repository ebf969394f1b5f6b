"""How many multiply-accumulates one inference takes.

Convolutions (dense, grouped, depth-wise, transposed), matrix products and attention are counted by PyTorch's
`FlopCounterMode` from the shapes of the tensors; the selective scan, which it does not know, by the formula of
`scan_flops`. Norms, activations, sums and interpolation have no formula, as is usual; they are listed by name, so that
an operator that should have been counted is seen to be missing.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.ops import scan_orders

# Per state and token, as mamba-ssm counts: δA, exp, δB, times u, decay times state, plus, times C, and its sum.
_FLOPS_PER_STATE = 9
# What the list calls tensors that came out of code that PyTorch's dispatcher does not know.
UNSEEN = "code outside of PyTorch"
# They change a tensor's shape or make one without computing anything.
_NO_WORK = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh", "promote_types"}


@dataclass(frozen=True)
class OperationCount:
    """Multiply-accumulates of one inference; two floating-point operations each.

    Attributes:
        convolution: of all kinds of convolutions.
        matrix_product: of linear layers and attention.
        scan: of selective scans.
        uncounted: operators without a formula to the number of values that came out of them, most first. `UNSEEN` is
            among them where tensors came out of compiled extensions, whose work nobody can see.
    """

    convolution: int
    matrix_product: int
    scan: int
    uncounted: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def total(self) -> int:
        """All that was counted."""
        return self.convolution + self.matrix_product + self.scan


def count_operations(network: nn.Module, in_channels: int, image_size: Sequence[int], batch: int = 1) -> OperationCount:
    """Count what one inference takes, from shapes alone: nothing is computed and the network is not touched.

    Only where a network cannot work on shapes alone (on PyTorch's device ``meta``), because it looks at values or calls
    a compiled extension, it is run once where it is.

    Args:
        network: takes images (batch, in_channels, *image_size).
        in_channels: number of image channels.
        image_size: (D, H, W) in voxels.
        batch: images at once.
    """
    shape = (batch, in_channels, *image_size)
    try:
        shadow = copy.deepcopy(network).to("meta").eval()
        return _count(shadow, torch.empty(shape, device="meta"))
    except Exception:  # whatever a network does with tensors that have no values; a real fault shows again below
        was_training = network.training
        parameter = next(network.parameters(), None)
        device = "cpu" if parameter is None else parameter.device
        try:
            return _count(network.eval(), torch.randn(shape, device=device))
        finally:
            network.train(was_training)


def _count(network: nn.Module, image: Tensor) -> OperationCount:
    counter, scans = FlopCounterMode(display=False), _ScanCounter()
    others = _Others(counter.flop_registry, _tensors_of(network, image))
    with torch.no_grad(), counter, others, scans:
        others.look_at(network(image))
    by_operator = counter.get_flop_counts().get("Global", {})
    convolution = sum(flops for operator, flops in by_operator.items() if "convolution" in str(operator))
    return OperationCount(
        convolution=convolution // 2,
        matrix_product=(sum(by_operator.values()) - convolution) // 2,
        scan=scans.flops // 2,
        uncounted=dict(sorted(others.values.items(), key=lambda item: -item[1])),
    )


def scan_flops(batch: int, channels: int, length: int, states: int, *, skip: bool, gate: bool) -> int:
    """Floating-point operations of a selective scan: 9·B·D·L·N, and B·D·L each for the skip D·u and the gate.

    It is the accounting of mamba-ssm for the recurrence step by step; kernels that scan in parallel do more.
    """
    return batch * channels * length * (_FLOPS_PER_STATE * states + skip + gate)


class _ScanCounter(TorchFunctionMode):
    """Takes the place of selective scans: counts them and gives a result of the right shape."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self._signature = inspect.signature(scan_orders)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not scan_orders:
            return func(*args, **(kwargs or {}))
        call = self._signature.bind(*args, **(kwargs or {})).arguments
        u: Tensor = call["u"]
        orders, batch, length, channels = u.shape
        states = call["A"].shape[-1]
        skip, gate = call.get("D") is not None, call.get("z") is not None
        self.flops += orders * scan_flops(batch, channels, length, states, skip=skip, gate=gate)
        return torch.empty_like(u)


class _Others(TorchDispatchMode):
    """Lists operators that have no formula, and tensors that no operator made.

    Args:
        registry: operators that have one.
        known: tensors that are there before.

    Attributes:
        values: how many came out of each, by name.
    """

    def __init__(self, registry: Mapping[Any, Any], known: Iterable[Tensor]) -> None:
        super().__init__()
        self.values: dict[str, int] = {}
        self._registry = registry
        self._known: set[int] = set()
        for tensor in known:
            self._remember(tensor)

    def look_at(self, given: Any) -> None:
        """See whether these tensors came from anywhere."""
        for leaf in tree_leaves(given):
            # What is a scalar, or counts something, is a setting; what has no values is nobody's work.
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel() > 1 and not leaf.is_meta:
                if leaf.untyped_storage()._cdata not in self._known:
                    self._add(UNSEEN, leaf)
                self._remember(leaf)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        if name not in _NO_WORK:
            self.look_at((args, kwargs))
        result = func(*args, **(kwargs or {}))
        counted = func._overloadpacket in self._registry
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                if not (counted or func.is_view or name in _NO_WORK):
                    self._add(name, leaf)
                self._remember(leaf)
        return result

    def _add(self, name: str, tensor: Tensor) -> None:
        self.values[name] = self.values.get(name, 0) + tensor.numel()

    def _remember(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(storage, self._known.discard, key)  # another one may come to lie there


def _tensors_of(network: nn.Module, image: Tensor) -> Iterable[Tensor]:
    yield image
    yield from network.parameters()
    yield from network.buffers()
    for module in network.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))
