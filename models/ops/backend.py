"""Which way an operation goes: PyTorch's own, anywhere, or kernels in Triton, where these can run."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from models.errors import ModelError
from models.request import unknown

BACKENDS = ("torch", "triton")


def choose(
    operation: str, backend: str | None, tensor: Tensor, *, obstacle: str | None = None, preferred: bool = True
) -> str:
    """One of `BACKENDS` for an operation on a tensor.

    Args:
        operation: its name, for messages.
        backend: what the caller named; None for ``triton`` on a GPU where nothing stands against it, else ``torch``.
        obstacle: why the operation's kernels cannot take the tensor wherever it lies; None if they can.
        preferred: whether kernels that nobody named are to be taken.

    Raises:
        ModelError: `backend` is neither, or it is ``triton`` and cannot run.
    """
    if backend is None:
        runs = preferred and tensor.is_cuda and obstacle is None and triton_obstacle(tensor) is None
        return "triton" if runs else "torch"
    if backend not in BACKENDS:
        raise unknown(f"{operation}: backend", backend, BACKENDS, f"There are: {', '.join(BACKENDS)}.")
    if backend == "triton" and (found := obstacle or triton_obstacle(tensor)):
        raise ModelError(f"{operation}: backend 'triton' cannot run here: {found}.")
    return backend


def triton_obstacle(tensor: Tensor) -> str | None:
    """Why no kernel in Triton can take a tensor where it lies, and what would help; None if one can."""
    if not _has_triton():
        return "the package triton is not installed; PyTorch for CUDA brings it"
    if not tensor.is_cuda and not _is_interpreted():
        return f"it runs on a GPU and the tensors are on {tensor.device}; TRITON_INTERPRET=1 runs it there, slowly"
    return None


# Dynamo cannot look into the two that follow.
@torch.compiler.assume_constant_result
def _has_triton() -> bool:
    return find_spec("triton") is not None


@torch.compiler.assume_constant_result
def _is_interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)
