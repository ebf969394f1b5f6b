"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752): one function, several backends.

Shapes in this folder: B batch, D channels, L sequence length, N states per channel, G groups of channels
that share an input and an output projection, O orders in which the same tokens are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from models.errors import ModelError
from models.ops.backend import triton_obstacle
from models.ops.order import BACKWARD, FORWARD, Order
from models.ops.precision import no_autocast
from models.request import unknown

# Takes the arguments of `scan_orders` up to `orders`, with shapes and dtypes checked, and runs outside autocast.
Scan = Callable[..., Tensor]


@dataclass(frozen=True)
class Backend:
    """A way to carry out scans.

    Attributes:
        load: imports it; called once it is known to be possible.
        obstacle: why it cannot scan a tensor with so many states, and what would help; None if it can.
        load_sequence: the same for one order, tensors as `selective_scan` takes them, B and C with groups; where a
            backend has none, `selective_scan` goes by `load`.
    """

    load: Callable[[], Scan]
    obstacle: Callable[[Tensor, int], str | None]
    load_sequence: Callable[[], Scan] | None = None


def _reference() -> Scan:
    from models.ops.reference import selective_scan

    return _order_by_order(selective_scan)


def _torch() -> Scan:
    from models.ops.torch_scan import selective_scan

    return _order_by_order(selective_scan)


def _triton() -> Scan:
    from models.ops.triton_scan import scan_orders

    return scan_orders


def _triton_sequence() -> Scan:
    from models.ops.triton_scan import scan_sequence

    return scan_sequence


def _mamba_ssm() -> Scan:
    from models.ops.mamba_ssm_scan import selective_scan

    return _order_by_order(selective_scan)


def _no_obstacle(_u: Tensor, _states: int) -> str | None:
    return None


def _triton_obstacle(u: Tensor, states: int) -> str | None:
    if (obstacle := triton_obstacle(u)) is not None:
        return obstacle
    from models.ops.triton_scan import MOST_STATES

    if states > MOST_STATES:
        return f"it keeps up to {MOST_STATES} states per channel and there are {states}"
    return None


def _mamba_ssm_obstacle(u: Tensor, _states: int) -> str | None:
    if find_spec("mamba_ssm") is None:
        return "the package mamba-ssm is not installed; pip install 'segmamba-bench[cuda]' builds it with nvcc"
    if not u.is_cuda:
        return f"it runs on a GPU and the tensors are on {u.device}"
    if u.dtype == torch.float64:
        return "it has no fp64"
    try:
        _mamba_ssm()
    except ImportError as error:
        return f"the package mamba-ssm is installed and does not load: {error}"
    return None


_BACKENDS: dict[str, Backend] = {
    "reference": Backend(_reference, _no_obstacle),
    "torch": Backend(_torch, _no_obstacle),
    "triton": Backend(_triton, _triton_obstacle, _triton_sequence),
    "mamba_ssm": Backend(_mamba_ssm, _mamba_ssm_obstacle),
}
_chosen: str | None = None


def backends() -> tuple[str, ...]:
    """The names of the backends."""
    return tuple(_BACKENDS)


def set_default_backend(name: str | None) -> None:
    """Let this process scan with a backend wherever none is named; None for the best for each device.

    Raises:
        ModelError: there is no backend of this name.
    """
    global _chosen
    _chosen = None if name is None else _known(name)


def resolve_backend(name: str | None, tensor: Tensor, states: int = 16) -> str:
    """The backend that scans `tensor`: the named one, else this process's default, else the best for its device.

    Raises:
        ModelError: there is no backend of this name, it cannot scan `tensor`, or `tensor` is not floating point.
    """
    if not tensor.is_floating_point():
        raise ModelError(f"selective_scan: u must be floating point; got {tensor.dtype}.")
    name = name or _chosen
    if name is None:
        return "triton" if tensor.is_cuda and _triton_obstacle(tensor, states) is None else "torch"
    obstacle = _BACKENDS[_known(name)].obstacle(tensor, states)
    if obstacle is not None:
        raise ModelError(f"selective_scan: backend {name!r} cannot scan this: {obstacle}.")
    return name


def _known(name: str) -> str:
    if name not in _BACKENDS:
        raise unknown("selective_scan: backend", name, _BACKENDS, f"There are: {', '.join(_BACKENDS)}.")
    return name


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Run a selective state-space model along a sequence; names and shapes are mamba-ssm's `selective_scan_fn`.

    With δ = softplus(delta + delta_bias), or their sum alone without `delta_softplus`, for each channel:
    h_t = exp(δ_t A) h_{t-1} + δ_t B_t u_t from h_{-1} = 0; y_t = C_t · h_t + D u_t; y_t is multiplied by
    silu(z_t). The state is fp32, or fp64 where u is; autocast has no say in it.

    Tensors (B, D, L) that are transposed views of (B, L, D) are scanned as they lie by the backend ``triton``, which
    copies others; its result is such a view.

    Args:
        u: input (B, D, L).
        delta: step sizes (B, D, L).
        A: decay rates (D, N), negative where the state is to fade.
        B: input projection (B, N, L), or (B, G, N, L) where group g serves D/G consecutive channels.
        C: output projection, shaped like B.
        D: skip weights (D,).
        z: gate (B, D, L).
        delta_bias: added to `delta` (D,).
        delta_softplus: whether step sizes pass a softplus.
        reverse: scan from the end: the result of flipping all sequences, scanning and flipping back.
        backend: one of `backends()`; by default the best for u's device.

    Returns:
        y (B, D, L) in u's dtype.

    Raises:
        ModelError: the backend is unknown or cannot scan these tensors, or a shape does not fit.
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    order = BACKWARD if reverse else FORWARD
    if not has_torch_function((u,)):
        load = _BACKENDS[resolve_backend(backend, u, A.shape[-1])].load_sequence
        if load is not None:
            with no_autocast(u.device.type):
                return load()(u, delta, A, B, C, D, z, delta_bias, delta_softplus, order)
    y = scan_orders(
        u.mT.unsqueeze(0),
        delta.mT.unsqueeze(0),
        A.unsqueeze(0),
        B.permute(0, 3, 1, 2).unsqueeze(0),
        C.permute(0, 3, 1, 2).unsqueeze(0),
        None if D is None else D.unsqueeze(0),
        None if z is None else z.mT,
        None if delta_bias is None else delta_bias.unsqueeze(0),
        delta_softplus,
        (order,),
        backend=backend,
    )
    return y.squeeze(0).mT


def scan_orders(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    orders: Sequence[Order],
    *,
    backend: str | None = None,
) -> Tensor:
    """`selective_scan` over the same tokens in several orders at once, each with parameters of its own.

    Token by token, as layers have them: the result of a token stands where the token stands, whatever the order.

    Args:
        u: input (O, B, L, D).
        delta: step sizes (O, B, L, D).
        A: decay rates (O, D, N).
        B: input projection (O, B, L, G, N).
        C: output projection, shaped like B.
        D: skip weights (O, D).
        z: gate (B, L, D), the same for every order.
        delta_bias: added to `delta` (O, D).
        delta_softplus: whether step sizes pass a softplus.
        orders: the orders.
        backend: as for `selective_scan`.

    Returns:
        y (O, B, L, D) in u's dtype.

    Raises:
        ModelError: as `selective_scan`; or the slices of an order do not divide L.
    """
    arguments = (u, delta, A, B, C, D, z, delta_bias, delta_softplus, tuple(orders))
    # As PyTorch's own functions do, so that a torch function mode, such as a counter of operations, sees one call.
    if has_torch_function((u,)):
        found: Tensor = handle_torch_function(scan_orders, (u,), *arguments, backend=backend)
        return found
    scan = _BACKENDS[resolve_backend(backend, u, A.shape[-1])].load()
    with no_autocast(u.device.type):
        return scan(*arguments)


def _order_by_order(selective_scan: Scan) -> Scan:
    """`scan_orders` by a function of the tensors of one order, as `selective_scan` takes them, B and C with groups."""

    def scan(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
        orders: Sequence[Order],
    ) -> Tensor:
        results = []
        for index, order in enumerate(orders):
            y = selective_scan(
                order.take(u[index]).mT,
                order.take(delta[index]).mT,
                A[index],
                order.take(B[index]).permute(0, 2, 3, 1),
                order.take(C[index]).permute(0, 2, 3, 1),
                None if D is None else D[index],
                None if z is None else order.take(z).mT,
                None if delta_bias is None else delta_bias[index],
                delta_softplus,
            )
            results.append(order.put_back(y.mT))
        return results[0].unsqueeze(0) if len(results) == 1 else torch.stack(results)

    return scan


def _check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.dim() != 3 or u.shape[-1] == 0:
        raise ModelError(f"selective_scan: u must be (B, D, L) with L at least 1; got {tuple(u.shape)}.")
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise ModelError(f"selective_scan: A must be (D, N) with D = {channels} as in u; got {tuple(A.shape)}.")
    states = A.shape[1]
    groups = B.shape[1:-2] if B.dim() == 4 else ()
    if groups and (groups[0] == 0 or channels % groups[0]):
        raise ModelError(f"selective_scan: {groups[0]} groups in B do not divide the {channels} channels of u.")
    expected = {
        "delta": (delta, (batch, channels, length)),
        "B": (B, (batch, *groups, states, length)),
        "C": (C, (batch, *groups, states, length)),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, length)),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ModelError(
                f"selective_scan: {name} must be {shape} for u {tuple(u.shape)} and A {tuple(A.shape)}; "
                f"got {tuple(tensor.shape)}."
            )
