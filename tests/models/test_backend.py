"""The choice between PyTorch and Triton."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.ops import backend, launch
from models.ops.backend import choose

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")


class _OnAGpu(torch.Tensor):
    is_cuda = True  # type: ignore[assignment]


@pytest.fixture
def on_a_gpu() -> Tensor:
    return torch.zeros(2).as_subclass(_OnAGpu)


@contextmanager
def _interpreting(whether: bool) -> Iterator[None]:
    import triton

    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = whether
        yield


def test_by_default_kernels_run_on_a_gpu_where_nothing_stands_against_it(on_a_gpu: Tensor) -> None:
    assert choose("it", None, on_a_gpu) == "triton"
    assert choose("it", None, on_a_gpu, obstacle="the moon") == "torch"
    assert choose("it", None, on_a_gpu, preferred=False) == "torch"
    with _interpreting(True):
        assert choose("it", None, torch.zeros(2)) == "torch"
    with patch.object(backend, "find_spec", lambda _: None):
        assert choose("it", None, on_a_gpu) == "torch"


def test_what_is_named_is_taken_or_refused_with_the_reason(on_a_gpu: Tensor) -> None:
    assert choose("it", "torch", on_a_gpu) == "torch"
    assert choose("it", "triton", on_a_gpu, preferred=False) == "triton"
    with pytest.raises(ModelError, match="it: backend 'triton' cannot run here: the moon"):
        choose("it", "triton", on_a_gpu, obstacle="the moon")
    with _interpreting(True):
        assert choose("it", "triton", torch.zeros(2)) == "triton"
    with _interpreting(False), pytest.raises(ModelError, match="tensors are on cpu; TRITON_INTERPRET=1"):
        choose("it", "triton", torch.zeros(2))
    with patch.object(backend, "find_spec", lambda _: None), pytest.raises(ModelError, match="triton is not installed"):
        choose("it", "triton", on_a_gpu)


def test_unknown_backend_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"it: backend 'trito' is unknown. Did you mean 'triton'\?.*torch, triton"):
        choose("it", "trito", torch.zeros(2))


@pytest.mark.parametrize(("whole", "part"), [(0, 3), (1, 3), (3, 3), (4, 3), (2**40 + 1, 2)])
def test_launches_are_reckoned_as_triton_does(whole: int, part: int) -> None:
    import triton

    assert launch.cdiv(whole, part) == triton.cdiv(whole, part)
    assert launch.next_power_of_2(whole + 1) == triton.next_power_of_2(whole + 1)
