"""The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752): one function, several backends.

Shapes in this folder: B batch, D channels, L sequence length, N states per channel, G groups of channels
that share an input and an output projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from models.errors import ModelError
from models.ops import reference, torch_scan
from models.ops.precision import no_autocast
from models.request import unknown

# A backend takes (u, delta, A, B, C, D, z, delta_bias, delta_softplus) with shapes and dtypes checked, B and C
# with their group axis, scans forwards and returns y (B, D, L) in u's dtype. It runs outside autocast.
Backend = Callable[..., Tensor]

_BACKENDS: Mapping[str, Backend] = {
    "reference": reference.selective_scan,
    "torch": torch_scan.selective_scan,
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


def resolve_backend(name: str | None, tensor: Tensor) -> str:
    """The backend that scans `tensor`: the named one, else this process's default, else the best for its device.

    Raises:
        ModelError: there is no backend of this name, or `tensor` is not floating point.
    """
    if not tensor.is_floating_point():
        raise ModelError(f"selective_scan: u must be floating point; got {tensor.dtype}.")
    if name is None:
        return _chosen or "torch"
    return _known(name)


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
        ModelError: the backend is unknown or a shape does not fit.
    """
    # As PyTorch's own functions do, so that a torch function mode, such as a counter of operations, sees one call.
    if has_torch_function((u,)):
        found: Tensor = handle_torch_function(
            selective_scan,
            (u,),
            u,
            delta,
            A,
            B,
            C,
            D,
            z,
            delta_bias,
            delta_softplus=delta_softplus,
            reverse=reverse,
            backend=backend,
        )
        return found
    scan = _BACKENDS[resolve_backend(backend, u)]
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    if reverse:
        u, delta, B, C = (tensor.flip(-1) for tensor in (u, delta, B, C))
        z = None if z is None else z.flip(-1)
    with no_autocast(u.device.type):
        y = scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return y.flip(-1) if reverse else y


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
